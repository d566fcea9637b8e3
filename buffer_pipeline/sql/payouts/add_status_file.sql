-- Notes that a bank's status file is being imported for a batch, and which of its lines mark nothing. Waits for
-- another import of the same file. No row if it was imported before.
INSERT INTO buffer.payout_status_file (
  payout_batch_id, digest, imported_by, imported_at, paid, returned, unknown, differing, conflicting
)
VALUES (
  CAST(:payout_batch_id AS bigint),
  decode(:digest, 'hex'),
  :imported_by,
  CAST(:now AS timestamptz),
  CAST(:paid AS bigint),
  CAST(:returned AS bigint),
  CAST(:unknown AS text[]),
  CAST(:differing AS text[]),
  CAST(:conflicting AS text[])
)
ON CONFLICT (payout_batch_id, digest) DO NOTHING
RETURNING payout_batch_id
