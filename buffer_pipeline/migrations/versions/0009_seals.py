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

# Sealing waits for whoever has begun, by their numbers. A line's id may be taken before a transaction has one.
_NUMBER_FIRST = """
CREATE FUNCTION buffer.take_number() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM pg_current_xact_id();
  RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION buffer.take_number() FROM PUBLIC;
CREATE TRIGGER transaction_takes_its_number BEFORE INSERT ON buffer.transaction
FOR EACH STATEMENT EXECUTE FUNCTION buffer.take_number();
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
        sa.CheckConstraint("seal_id BETWEEN 1 AND 4611686018427387904", name="seal_counts_from_one"),
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
    op.execute(_NUMBER_FIRST)


def downgrade() -> None:
    # Anchors that were noted are worth nothing behind this: what is sealed again has other digests.
    op.execute("DROP TRIGGER transaction_takes_its_number ON buffer.transaction")
    op.execute("DROP FUNCTION buffer.take_number()")
    op.drop_table("seal", schema="buffer")
