-- Writes an empty message into the WAL, so that the commit of a transaction that only reads waits for the synchronous
-- standby, as in enter_hour.sql. On a hot standby, where nothing can be written, it does nothing.
SELECT
  CASE
    WHEN NOT pg_catalog.pg_is_in_recovery()
      THEN pg_catalog.pg_logical_emit_message(TRUE, 'buffer_pipeline', '')
  END IS NOT NULL AS is_confirmed
