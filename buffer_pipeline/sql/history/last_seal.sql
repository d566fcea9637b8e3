-- The end of the chain; no row where nothing is sealed.
SELECT
  seal_id,
  through_id,
  digest
FROM buffer.seal
ORDER BY seal_id DESC
LIMIT 1
