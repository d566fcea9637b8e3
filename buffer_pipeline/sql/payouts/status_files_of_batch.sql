-- The status files that were imported for a batch, the first one first. Reads only.
SELECT
  payout_batch_id,
  encode(digest, 'hex') AS digest,
  imported_by,
  imported_at,
  paid,
  returned,
  unknown,
  differing,
  conflicting
FROM buffer.payout_status_file
WHERE payout_batch_id = CAST(:payout_batch_id AS bigint)
ORDER BY imported_at, digest
