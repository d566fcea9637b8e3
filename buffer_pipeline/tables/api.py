"""Keys of the HTTP API, and its answers to writes."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

from buffer_pipeline.tables.schema import metadata, time_column

# The key itself is shown once, when it is made. Only the owner of the books makes and revokes keys.
api_key = Table(
    "api_key",
    metadata,
    Column("api_key_id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    time_column("made_at"),
    time_column("expires_at", nullable=True),
    time_column("revoked_at", nullable=True),
    UniqueConstraint("name", name="api_key_name_key"),
    UniqueConstraint("digest", name="api_key_digest_key"),
    CheckConstraint("length(name) BETWEEN 1 AND 100", name="api_key_name_length"),
    CheckConstraint("name !~ '[[:cntrl:]]' AND name = btrim(name)", name="api_key_name_is_one_line"),
    CheckConstraint("role IN ('platform', 'operator', 'payouts', 'reader')", name="api_key_role_is_known"),
    CheckConstraint("octet_length(digest) = 32", name="api_key_digest_is_sha256"),
    CheckConstraint("expires_at > made_at", name="api_key_expires_after_it_is_made"),
    CheckConstraint("revoked_at >= made_at", name="api_key_revoked_after_it_is_made"),
)

# Written in the transaction of the verb: a row is there exactly if the verb's work is. Deleted after 30 days.
api_request = Table(
    "api_request",
    metadata,
    Column("api_request_id", BigInteger, Identity(always=True), primary_key=True),
    Column(
        "api_key_id",
        BigInteger,
        ForeignKey(api_key.c.api_key_id, name="api_request_api_key_fkey"),
        nullable=False,
    ),
    Column("idempotency_key", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("content_digest", LargeBinary, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("answer", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    time_column("recorded_at"),
    UniqueConstraint("api_key_id", "idempotency_key", name="api_request_idempotency_key_key"),
    CheckConstraint("length(idempotency_key) BETWEEN 1 AND 200", name="api_request_idempotency_key_length"),
    CheckConstraint("octet_length(content_digest) = 32", name="api_request_content_digest_is_sha256"),
    CheckConstraint("status BETWEEN 200 AND 299", name="api_request_status_is_a_success"),
)
Index("api_request_recorded_at_idx", api_request.c.recorded_at)
