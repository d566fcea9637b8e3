"""Transactions are sealed: a chain of digests over what was written, which shows what is altered behind it."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Digests are no text, and are not compressed.
_SEAL = """
ALTER TABLE buffer.seal ALTER COLUMN line_digests SET STORAGE EXTERNAL;
CREATE TRIGGER seal_is_append_only
BEFORE UPDATE OR DELETE OR TRUNCATE ON buffer.seal
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
REVOKE UPDATE, DELETE, TRUNCATE ON buffer.seal FROM CURRENT_USER;
GRANT SELECT ON buffer.seal TO buffer_releaser, buffer_reader;
GRANT INSERT (seal_id, first_id, through_id, lines, transaction_ids, line_digests, digest, sealed_at)
  ON buffer.seal TO buffer_releaser;
"""

# What a line says, all of it but its id, which the seal has. The two kinds that there are many of are packed into one
# block of SHA-256 each, as long as what is not in the packing is as the kind has it; a line for which that is not so,
# and any other, is told in JSON. No packing can be taken for another: their lengths differ, and JSON begins with [.
# It is written into the statement that asks for it, so it must not say SET search_path; names in a body like this one
# are looked up once, here.
_LINE_DIGEST = """
CREATE FUNCTION buffer.line_digest(line buffer.transaction) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE
RETURN pg_catalog.substr(pg_catalog.sha256(coalesce(
  CASE
    WHEN line.type = 'EARNING' AND line.from_account = 'PENDING_EARNINGS' AND line.to_account = 'BALANCE'
      AND line.from_wallet_id = line.to_wallet_id AND line.backjob_id IS NULL AND line.reference IS NULL
    THEN pg_catalog.int8send(line.to_wallet_id) || pg_catalog.int8send(line.amount_minor)
      || pg_catalog.int8send(line.balance_after_minor) || pg_catalog.int8send(line.hold_id)
      || pg_catalog.int4send(CAST(line.batch_id & 2147483647 AS integer))
      || pg_catalog.timestamptz_send(line.recorded_at) || pg_catalog.timestamptz_send(line.release_date)
      || pg_catalog.textsend(line.currency)
    WHEN line.type = 'PENDING_EARNING' AND line.from_account = 'ESCROW'
      AND line.to_account = 'PENDING_EARNINGS' AND line.from_wallet_id IS NULL
      AND line.balance_after_minor IS NULL AND line.backjob_id IS NULL AND line.batch_id IS NULL
      AND line.reference IS NULL AND line.release_date IS NULL
    THEN pg_catalog.int8send(line.to_wallet_id) || pg_catalog.int8send(line.amount_minor)
      || pg_catalog.int8send(line.hold_id) || pg_catalog.timestamptz_send(line.recorded_at)
      || pg_catalog.textsend(line.currency)
  END,
  pg_catalog.convert_to(CAST(pg_catalog.jsonb_build_array(
    line.type, line.from_account, line.from_wallet_id, line.to_account, line.to_wallet_id, line.currency,
    line.amount_minor, line.balance_after_minor, line.hold_id, line.backjob_id, line.batch_id, line.reference,
    extract(EPOCH FROM line.recorded_at), extract(EPOCH FROM line.release_date)
  ) AS text), 'UTF8')
)), 1, 16)
"""


def upgrade() -> None:
    op.create_table(
        "seal",
        sa.Column("seal_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("first_id", sa.BigInteger, nullable=False),
        sa.Column("through_id", sa.BigInteger, nullable=False),
        sa.Column("lines", sa.BigInteger, nullable=False),
        sa.Column("transaction_ids", sa.ARRAY(sa.BigInteger), nullable=True),
        sa.Column("line_digests", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("first_id", name="seal_first_id_key"),
        sa.CheckConstraint("seal_id > 0", name="seal_counts_from_one"),
        sa.CheckConstraint("lines > 0 AND through_id >= first_id", name="seal_has_lines"),
        sa.CheckConstraint(
            "(through_id - first_id + 1 = lines) = (transaction_ids IS NULL)"
            " AND cardinality(transaction_ids) = lines",
            name="seal_names_its_lines_iff_some_between_are_missing",
        ),
        sa.CheckConstraint("length(line_digests) = 16 * lines", name="seal_has_a_digest_of_each_line"),
        sa.CheckConstraint("length(digest) = 32", name="seal_digest_length"),
        schema="buffer",
    )
    op.execute(_SEAL)
    op.execute(_LINE_DIGEST)
    op.execute("REVOKE ALL ON FUNCTION buffer.line_digest(buffer.transaction) FROM PUBLIC")
    op.execute(
        "GRANT EXECUTE ON FUNCTION buffer.line_digest(buffer.transaction) TO buffer_releaser, buffer_reader"
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION buffer.line_digest(buffer.transaction)")
    op.drop_table("seal", schema="buffer")
