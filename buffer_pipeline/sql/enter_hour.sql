-- Marks the hour of :now as being written until the transaction ends; waits for nobody.
-- Returns whether :now is more than :ahead_max after the database's clock, for a login that row-level security applies to:
-- the policies of migration 0013 would refuse what it writes.
-- Also writes an empty message into the WAL. A commit waits for the synchronous standby only if its transaction has
-- written WAL, so without it an answer from what is there already would not wait (decision 26). Its number is asked for
-- because PostgreSQL refuses that by name on a hot standby, which may have what its next primary has not.
SELECT
  buffer.enter_hour(CAST(:now AS timestamptz)) AS entered,
  pg_catalog.pg_logical_emit_message(
    pg_catalog.pg_current_xact_id() IS NOT NULL, 'buffer_pipeline', ''
  ) IS NOT NULL AS is_confirmed,
  pg_catalog.row_security_active('buffer.batch')
  AND CAST(:now AS timestamptz) > clock_timestamp() + CAST(:ahead_max AS interval) AS is_ahead
