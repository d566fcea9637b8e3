-- Each EARNING has the time of its batch, and each EARNING_PART that of an EARLY one. Unless the batch is EARLY, the release date is not after the
-- batch's cut-off, and the cut-off is not after that time. Each other transaction has the time of its batch, which is of
-- the kind that makes such transactions. No batch is empty, except a claw-back that only made debts.
WITH
line AS (
  SELECT
    transaction_id,
    type,
    hold_id,
    batch_id,
    release_date,
    recorded_at
  FROM buffer.transaction
  WHERE type = 'EARNING' OR batch_id IS NOT NULL
)

SELECT
  batch.batch_id,
  batch.kind,
  batch.source,
  batch.due_by,
  batch.recorded_at AS batch_recorded_at,
  line.transaction_id,
  line.hold_id,
  line.release_date,
  line.recorded_at
FROM buffer.batch
FULL JOIN line ON batch.batch_id = line.batch_id
WHERE
  batch.batch_id IS NULL
  OR (line.batch_id IS NULL AND batch.kind <> 'CLAWBACK')
  OR batch.kind <> ALL(
    CASE line.type
      WHEN 'EARNING' THEN ARRAY['DUE', 'EARLY']
      WHEN 'EARNING_PART' THEN ARRAY['EARLY']
      WHEN 'REFUND' THEN ARRAY['REFUND']
      WHEN 'RECOVERY' THEN ARRAY['DUE', 'EARLY', 'RECOVERY']
      WHEN 'WRITE_OFF' THEN ARRAY['FORGIVEN']
      ELSE ARRAY['CLAWBACK']
    END
  )
  OR batch.recorded_at <> line.recorded_at
  OR (batch.kind = 'DUE' AND line.type = 'EARNING' AND NOT (line.release_date <= batch.due_by AND batch.due_by <= batch.recorded_at))
ORDER BY batch.batch_id, line.transaction_id
