-- The transactions that took money of a hold out of the buffer, and the claw-backs of it, the oldest first:
-- who did each and why. A scheduled release has nobody. Reads only.
-- Two partial indexes cover a hold's transactions: one the EARNINGs, one the others. The OR lets the planner
-- use both.
SELECT
  line.type,
  line.amount_minor,
  line.recorded_at,
  line.backjob_id,
  CASE
    WHEN line.backjob_id IS NOT NULL THEN backjob.decided_by
    WHEN batch.kind <> 'DUE' THEN batch.source
  END AS by,
  coalesce(backjob.decision_reason, batch.reason) AS reason,
  (
    SELECT CAST(sum(recovery.amount_minor) AS bigint)
    FROM buffer.transaction AS recovery
    WHERE
      line.type IN ('EARNING', 'EARNING_PART')
      AND recovery.from_wallet_id = line.to_wallet_id
      AND recovery.from_wallet_id IS DISTINCT FROM recovery.to_wallet_id
      AND recovery.transaction_id > line.transaction_id
      AND recovery.type = 'RECOVERY'
      AND recovery.batch_id = line.batch_id
  ) AS recovered_minor
FROM buffer.transaction AS line
LEFT JOIN buffer.batch ON line.batch_id = batch.batch_id
LEFT JOIN buffer.backjob ON line.backjob_id = backjob.backjob_id
WHERE
  line.hold_id = CAST(:hold_id AS bigint)
  AND (line.type = 'EARNING' OR line.type <> 'EARNING')
  AND line.type IN ('EARNING', 'EARNING_PART', 'REFUND', 'CLAWBACK')
ORDER BY line.transaction_id
