-- The last link of the chain; no row if nothing is sealed. Also writes the WAL message of
-- hours/enter_hour.sql, because the seal is given to others as an anchor, even by a run that adds nothing to
-- the chain.
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
