-- Notes that a bank's status file is being imported for a batch. Waits for another import of the same file.
-- No row if it was imported before.
INSERT INTO buffer.payout_status_file (
  payout_batch_id, digest, imported_by, imported_at, paid, returned, unknown, differing
)
VALUES (
  CAST(:payout_batch_id AS bigint),
  decode(:digest, 'hex'),
  :imported_by,
  CAST(:now AS timestamptz),
  CAST(:paid AS bigint),
  CAST(:returned AS bigint),
  CAST(:unknown AS bigint),
  CAST(:differing AS bigint)
)
ON CONFLICT (payout_batch_id, digest) DO NOTHING
RETURNING payout_batch_id
