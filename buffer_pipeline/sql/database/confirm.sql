-- Writes an empty message into the WAL, so that the commit of a transaction that only reads waits for the
-- synchronous standby (see hours/enter_hour.sql). Does nothing on a hot standby, where nothing can be
-- written.
SELECT
  CASE
    WHEN NOT pg_catalog.pg_is_in_recovery()
      THEN pg_catalog.pg_logical_emit_message(TRUE, 'buffer_pipeline', '')
  END IS NOT NULL AS is_confirmed
