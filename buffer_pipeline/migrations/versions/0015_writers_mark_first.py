"""A transaction that adds lines has marked an hour before the first of their ids: sealing waits for the marks."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# The mark is of an hour so late that no count ever waits for it: the trigger also fires for a statement that
# inserts no row, as a replay does.
_MARK_FIRST = """
DROP TRIGGER transaction_takes_its_number ON buffer.transaction;
DROP FUNCTION buffer.take_number();
CREATE FUNCTION buffer.mark_as_writer() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM buffer.enter_hour(timestamptz '9999-12-31 00:00:00+00');
  RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION buffer.mark_as_writer() FROM PUBLIC;
CREATE TRIGGER transaction_marks_before_its_ids BEFORE INSERT ON buffer.transaction
FOR EACH STATEMENT EXECUTE FUNCTION buffer.mark_as_writer();
"""

_NUMBER_FIRST = """
DROP TRIGGER transaction_marks_before_its_ids ON buffer.transaction;
DROP FUNCTION buffer.mark_as_writer();
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
    op.execute(_MARK_FIRST)


def downgrade() -> None:
    op.execute(_NUMBER_FIRST)
