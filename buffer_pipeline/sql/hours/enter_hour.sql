-- Marks the hour of :now as being written until the transaction ends. Never waits.
-- Returns whether :now is more than :ahead_max after the database's clock, for a login that row-level
-- security applies to. The policies of migration 0013 would refuse what such a login writes.
-- Also writes an empty message into the WAL. A commit waits for the synchronous standby only if its
-- transaction has written WAL, so without the message a replay, which only reads, would not wait
-- (docs/decisions/0026). The transaction id is requested because PostgreSQL refuses that on a hot standby
-- with a clear error; a standby may have rows that the next primary does not have.
SELECT
  buffer.enter_hour(CAST(:now AS timestamptz)) AS entered,
  pg_catalog.pg_logical_emit_message(
    pg_catalog.pg_current_xact_id() IS NOT NULL, 'buffer_pipeline', ''
  ) IS NOT NULL AS is_confirmed,
  pg_catalog.row_security_active('buffer.batch')
  AND CAST(:now AS timestamptz) > buffer.clock() + CAST(:ahead_max AS interval) AS is_ahead
