"""The clock of a sandbox: books that were marked while they were empty, whose time moves only when told."""

import sqlalchemy as sa
from alembic import op

from buffer_pipeline.errors import PaymentBufferError

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

# Real books have no row here, and cannot get one. `now` is the time of a sandbox, and `worked_until` the last full
# hour whose work is done. While the clock is being advanced, or if that was cut short, `advance_from` is where it
# began and `advance_to` where it goes.
_TABLE = """
CREATE TABLE buffer.sandbox (
  sandbox_id smallint NOT NULL CONSTRAINT sandbox_pkey PRIMARY KEY,
  now timestamptz NOT NULL,
  worked_until timestamptz NOT NULL,
  advance_from timestamptz,
  advance_to timestamptz,
  daily_payouts boolean NOT NULL,
  CONSTRAINT sandbox_has_one_row CHECK (sandbox_id = 1),
  CONSTRAINT sandbox_now_is_within_the_years
    CHECK (now >= timestamptz '1970-01-01 00:00:00+00' AND now < timestamptz '3000-01-01 00:00:00+00'),
  CONSTRAINT sandbox_worked_until_is_not_after_now CHECK (worked_until <= now),
  CONSTRAINT sandbox_advance_has_two_ends CHECK ((advance_from IS NULL) = (advance_to IS NULL)),
  CONSTRAINT sandbox_now_is_within_the_advance CHECK (now >= advance_from AND now <= advance_to)
);
"""

# plpgsql, because it keeps its plan for the session. Real books pay for the look into an empty table once in a
# transaction; the statements of a release take the time as a parameter.
_CLOCK = """
CREATE FUNCTION buffer.clock() RETURNS timestamptz
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN coalesce((SELECT sandbox.now FROM buffer.sandbox), clock_timestamp());
END
$$;
"""

# The policies of real books compare with clock_timestamp() itself. Those of a sandbox are changed when it is marked,
# so that no policy of real books depends on the table above.
_POLICIES = """
CREATE FUNCTION buffer.follow_the_sandbox() RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  policy record;
BEGIN
  FOR policy IN
    SELECT policyname, tablename,
      replace(qual, 'clock_timestamp()', '(SELECT buffer.clock())') AS seen,
      replace(with_check, 'clock_timestamp()', '(SELECT buffer.clock())') AS checked
    FROM pg_policies
    WHERE schemaname = 'buffer' AND concat(qual, with_check) LIKE '%clock_timestamp()%'
    ORDER BY tablename, policyname
  LOOP
    EXECUTE format(
      'ALTER POLICY %I ON buffer.%I%s%s', policy.policyname, policy.tablename,
      ' USING (' || policy.seen || ')', ' WITH CHECK (' || policy.checked || ')'
    );
  END LOOP;
END
$$;
"""

# Locks each table as a writer does not let it be locked, and looks into it after that. ENABLE TRIGGER changes nothing;
# unlike LOCK TABLE, it asks only for the ownership, which the owner has of tables that it may not change. In another
# isolation level the look would not see what was committed since the transaction began.
_MARK = """
CREATE FUNCTION buffer.mark_only_empty_books() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
  its_table text;
  has_rows boolean;
  filled text[] := '{}';
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'books: a sandbox is made in a transaction that is READ COMMITTED'
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  FOR its_table IN
    SELECT relname FROM pg_class
    WHERE relnamespace = CAST('buffer' AS regnamespace) AND relkind IN ('r', 'p')
      AND relname NOT IN ('alembic_version', 'payout_ids', 'sandbox')
    ORDER BY relname
  LOOP
    EXECUTE format('ALTER TABLE buffer.%I ENABLE TRIGGER USER', its_table);
    EXECUTE format('SELECT EXISTS (SELECT FROM buffer.%I)', its_table) INTO has_rows;
    IF has_rows THEN
      filled := filled || its_table;
    END IF;
  END LOOP;
  IF filled <> '{}' THEN
    RAISE EXCEPTION
      'books: not empty (%); a sandbox needs books of its own: another BUFFER_HOME, or another database',
      array_to_string(filled, ', ')
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  IF EXISTS (
    SELECT FROM pg_locks
    INNER JOIN pg_database ON pg_locks.database = pg_database.oid
    WHERE pg_database.datname = current_database()
      AND pg_locks.locktype = 'advisory' AND pg_locks.classid = CAST(hashtext('buffer.hour') AS oid)
      AND pg_locks.objsubid = 2
      AND pg_locks.pid IS DISTINCT FROM pg_backend_pid()
  ) THEN
    RAISE EXCEPTION 'books: somebody is writing into them; a sandbox is made of books that nobody uses'
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  PERFORM buffer.follow_the_sandbox();
  RETURN NEW;
END
$$;
CREATE TRIGGER sandbox_is_made_of_empty_books BEFORE INSERT ON buffer.sandbox
FOR EACH ROW EXECUTE FUNCTION buffer.mark_only_empty_books();
CREATE TRIGGER sandbox_is_kept BEFORE DELETE OR TRUNCATE ON buffer.sandbox
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
CREATE TRIGGER sandbox_time_never_goes_back BEFORE UPDATE ON buffer.sandbox
FOR EACH ROW WHEN (NEW.now < OLD.now OR NEW.worked_until < OLD.worked_until)
EXECUTE FUNCTION buffer.refuse_rewriting();
"""

_GRANTS = """
REVOKE EXECUTE ON FUNCTION buffer.clock(), buffer.follow_the_sandbox(), buffer.mark_only_empty_books() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION buffer.clock()
TO buffer_platform, buffer_releaser, buffer_reader, buffer_payouts, buffer_api;
GRANT SELECT ON buffer.sandbox
TO buffer_platform, buffer_releaser, buffer_reader, buffer_payouts, buffer_api;
GRANT UPDATE (now, worked_until, advance_from, advance_to) ON buffer.sandbox TO buffer_releaser;
"""


def upgrade() -> None:
    op.execute(_TABLE)
    op.execute(_CLOCK)
    op.execute(_POLICIES)
    # The driver takes % as the start of a parameter.
    op.get_bind().exec_driver_sql(_MARK.replace("%", "%%"))
    op.execute(_GRANTS)


def downgrade() -> None:
    if op.get_bind().scalar(sa.text("SELECT EXISTS (SELECT FROM buffer.sandbox)")):
        raise PaymentBufferError("books: a sandbox, which no earlier version knows; make new books instead")
    op.execute("DROP TABLE buffer.sandbox")
    op.execute("DROP FUNCTION buffer.mark_only_empty_books(), buffer.follow_the_sandbox(), buffer.clock()")
