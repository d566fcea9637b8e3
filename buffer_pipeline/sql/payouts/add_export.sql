-- Notes that a file of the locked batch was written, with the next number. One row.
INSERT INTO buffer.payout_export (payout_batch_id, number, format, digest, exported_by, exported_at)
SELECT
  CAST(:payout_batch_id AS bigint),
  coalesce(max(before.number), 0) + 1,
  :format_name,
  decode(:digest, 'hex'),
  :exported_by,
  CAST(:now AS timestamptz)
FROM buffer.payout_export AS before
WHERE before.payout_batch_id = CAST(:payout_batch_id AS bigint)
RETURNING number
