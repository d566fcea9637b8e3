-- Per currency, what the run credited is what came into the buffer for the same holds, less refunds.
-- The run's batches are those of :source with lines recorded at or after :since. Each LATERAL subquery reads
-- one hold by its index.
WITH
recent AS MATERIALIZED (
  SELECT
    hold_id,
    batch_id
  FROM buffer.transaction
  WHERE
    recorded_at >= CAST(:since AS timestamptz) AND batch_id IS NOT NULL
    AND type IN ('EARNING', 'EARNING_PART', 'REFUND')
),

run_batch AS MATERIALIZED (
  SELECT seen.batch_id
  FROM (SELECT DISTINCT batch_id FROM recent) AS seen
  WHERE :source = (
    SELECT batch.source
    FROM buffer.batch
    WHERE batch.batch_id = seen.batch_id
  )
),

released AS MATERIALIZED (
  SELECT DISTINCT hold_id
  FROM recent
  WHERE batch_id IN (SELECT run_batch.batch_id FROM run_batch)
),

moved AS (
  SELECT
    released.hold_id,
    said.currency,
    said.held_minor,
    said.credited_minor
  FROM released
  CROSS JOIN LATERAL (
    SELECT
      transaction.currency,
      coalesce(sum(amount_minor) FILTER (WHERE type = 'PENDING_EARNING'), 0)
      - coalesce(sum(amount_minor) FILTER (WHERE type = 'REFUND'), 0) AS held_minor,
      coalesce(sum(amount_minor) FILTER (WHERE type IN ('EARNING', 'EARNING_PART')), 0) AS credited_minor
    FROM buffer.transaction
    -- Two conditions, because two indexes have the lines of a hold, one EARNING and one all others.
    WHERE
      transaction.hold_id = released.hold_id
      AND (transaction.type = 'EARNING' OR transaction.type <> 'EARNING')
    GROUP BY transaction.currency
  ) AS said
)

SELECT
  currency,
  sum(held_minor) AS held_minor,
  sum(credited_minor) AS credited_minor,
  count(*) FILTER (WHERE held_minor <> credited_minor) AS holds_that_differ
FROM moved
GROUP BY currency
HAVING count(*) FILTER (WHERE held_minor <> credited_minor) > 0
ORDER BY currency
