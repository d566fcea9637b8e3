-- The end of the chain; no row where nothing is sealed. The message is that of enter_hour.sql: the seal is told to
-- others as an anchor, also by a run that has nothing to add to it.
SELECT
  seal_id,
  through_id,
  digest,
  pg_catalog.pg_logical_emit_message(
    pg_catalog.pg_current_xact_id() IS NOT NULL, 'buffer_pipeline', ''
  ) IS NOT NULL AS is_confirmed
FROM buffer.seal
ORDER BY seal_id DESC
LIMIT 1
