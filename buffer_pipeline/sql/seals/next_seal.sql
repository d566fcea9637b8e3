-- The link after :seal_id, whatever its number is; no row at the end of the chain.
SELECT
  seal_id,
  first_id,
  through_id,
  lines,
  transaction_ids,
  line_digests,
  digest
FROM buffer.seal
WHERE seal_id > CAST(:seal_id AS bigint)
ORDER BY seal_id
LIMIT 1
