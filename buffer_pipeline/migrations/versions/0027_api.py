"""Keys of the HTTP API, and the answers to its writes, which a retry with the same idempotency key gets again."""

from alembic import op

from buffer_pipeline.migrations.roles import require_roles

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

# A key is shown once, when it is made; here is only its digest. Only the owner of the books makes and revokes keys.
_KEYS = """
CREATE TABLE buffer.api_key (
  api_key_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT api_key_pkey PRIMARY KEY,
  name text NOT NULL CONSTRAINT api_key_name_key UNIQUE,
  role text NOT NULL,
  digest bytea NOT NULL CONSTRAINT api_key_digest_key UNIQUE,
  made_at timestamptz NOT NULL,
  expires_at timestamptz,
  revoked_at timestamptz,
  CONSTRAINT api_key_name_length CHECK (length(name) BETWEEN 1 AND 100),
  CONSTRAINT api_key_name_is_one_line CHECK (name !~ '[[:cntrl:]]' AND name = btrim(name)),
  CONSTRAINT api_key_role_is_known CHECK (role IN ('platform', 'operator', 'payouts', 'reader')),
  CONSTRAINT api_key_digest_is_sha256 CHECK (octet_length(digest) = 32),
  CONSTRAINT api_key_expires_after_it_is_made CHECK (expires_at > made_at),
  CONSTRAINT api_key_revoked_after_it_is_made CHECK (revoked_at >= made_at)
);
"""

# Written in the transaction of the verb: a row is there exactly if the verb's work is.
_REQUESTS = """
CREATE TABLE buffer.api_request (
  api_request_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT api_request_pkey PRIMARY KEY,
  api_key_id bigint NOT NULL CONSTRAINT api_request_api_key_fkey REFERENCES buffer.api_key,
  idempotency_key text NOT NULL,
  method text NOT NULL,
  path text NOT NULL,
  content_digest bytea NOT NULL,
  status smallint NOT NULL,
  answer text NOT NULL,
  request_id text NOT NULL,
  recorded_at timestamptz NOT NULL,
  CONSTRAINT api_request_idempotency_key_key UNIQUE (api_key_id, idempotency_key),
  CONSTRAINT api_request_idempotency_key_length CHECK (length(idempotency_key) BETWEEN 1 AND 200),
  CONSTRAINT api_request_content_digest_is_sha256 CHECK (octet_length(content_digest) = 32),
  CONSTRAINT api_request_status_is_a_success CHECK (status BETWEEN 200 AND 299)
);
CREATE INDEX api_request_recorded_at_idx ON buffer.api_request (recorded_at);
"""

_GRANTS = """
GRANT USAGE ON SCHEMA buffer TO buffer_api;
GRANT SELECT ON buffer.api_key, buffer.alembic_version TO buffer_api;
GRANT SELECT, DELETE ON buffer.api_request TO buffer_api;
GRANT INSERT (
  api_key_id, idempotency_key, method, path, content_digest, status, answer, request_id, recorded_at
) ON buffer.api_request TO buffer_api;
"""


def upgrade() -> None:
    require_roles()
    op.execute(_KEYS)
    op.execute(_REQUESTS)
    op.execute(_GRANTS)


def downgrade() -> None:
    op.execute("DROP TABLE buffer.api_request, buffer.api_key")
    op.execute("REVOKE SELECT ON buffer.alembic_version FROM buffer_api")
    op.execute("REVOKE USAGE ON SCHEMA buffer FROM buffer_api")
