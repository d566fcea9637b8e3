-- The import of a bank's status file for a batch, by the file's digest. At most one row. Reads only.
SELECT
  imported_by,
  imported_at,
  paid,
  returned,
  cardinality(unknown) AS unknown,
  cardinality(differing) AS differing,
  cardinality(conflicting) AS conflicting
FROM buffer.payout_status_file
WHERE payout_batch_id = CAST(:payout_batch_id AS bigint) AND digest = decode(:digest, 'hex')
