-- Opens the batch of a recovery that was asked for.
INSERT INTO buffer.batch (kind, source, reason, reference, recorded_at)
VALUES (
  'RECOVERY', CAST(:asked_by AS text), CAST(:reason AS text), CAST(:reference AS text), CAST(:now AS timestamptz)
)
RETURNING batch_id
