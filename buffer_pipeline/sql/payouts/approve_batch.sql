-- MADE -> APPROVED. One batch; the caller has locked it.
UPDATE buffer.payout_batch
SET
  state = 'APPROVED',
  approved_by = :approved_by,
  approved_at = CAST(:now AS timestamptz)
WHERE payout_batch_id = CAST(:payout_batch_id AS bigint) AND state = 'MADE'
RETURNING state
