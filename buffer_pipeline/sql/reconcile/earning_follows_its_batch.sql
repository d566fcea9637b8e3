-- Each EARNING was written with its batch, one that is not EARLY once it was due: release date, then the batch's
-- cut-off, then the time of writing. No batch is empty.
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
  OR line.batch_id IS NULL
  OR (line.type = 'EARNING') <> (batch.kind IN ('DUE', 'EARLY'))
  OR batch.recorded_at <> line.recorded_at
  OR (batch.kind = 'DUE' AND NOT (line.release_date <= batch.due_by AND batch.due_by <= batch.recorded_at))
ORDER BY batch.batch_id, line.transaction_id
