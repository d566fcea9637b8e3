-- The files that were written for a batch, the first one first. Reads only.
SELECT
  payout_batch_id,
  number,
  format,
  encode(digest, 'hex') AS digest,
  exported_by,
  exported_at
FROM buffer.payout_export
WHERE payout_batch_id = CAST(:payout_batch_id AS bigint)
ORDER BY number
