-- Each line of the run has the time of its batch, a release date not after the batch's cut-off (a recovery of a
-- debt has none), and a cut-off not after that time.
-- The run's batches are those of :source with lines recorded at or after :since. Each LATERAL subquery reads
-- one batch by its index.
WITH
recent AS MATERIALIZED (
  SELECT
    transaction_id,
    type,
    hold_id,
    batch_id,
    release_date,
    recorded_at
  FROM buffer.transaction
  WHERE
    recorded_at >= CAST(:since AS timestamptz) AND batch_id IS NOT NULL
),

seen AS MATERIALIZED (
  SELECT DISTINCT batch_id
  FROM recent
),

run_batch AS MATERIALIZED (
  SELECT fact.*
  FROM seen
  CROSS JOIN LATERAL (
    SELECT
      batch.batch_id,
      batch.source,
      batch.due_by,
      batch.recorded_at
    FROM buffer.batch
    WHERE batch.batch_id = seen.batch_id
    ORDER BY batch.batch_id
    LIMIT 1
  ) AS fact
  WHERE fact.source = :source
)

SELECT
  run_batch.batch_id,
  run_batch.due_by,
  run_batch.recorded_at AS batch_recorded_at,
  recent.transaction_id,
  recent.hold_id,
  recent.release_date,
  recent.recorded_at
FROM recent
INNER JOIN run_batch ON recent.batch_id = run_batch.batch_id
WHERE
  recent.recorded_at <> run_batch.recorded_at
  OR NOT coalesce(recent.type = 'RECOVERY' OR recent.release_date <= run_batch.due_by AND run_batch.due_by <= run_batch.recorded_at, FALSE)
ORDER BY recent.transaction_id
