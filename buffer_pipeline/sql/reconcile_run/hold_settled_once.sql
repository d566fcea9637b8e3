-- Each hold that the run released was released once, to its payee, and has paid out exactly its amount.
-- The run's batches are those of :source with lines recorded at or after :since. Each LATERAL subquery reads
-- one hold by its index.
WITH
recent AS MATERIALIZED (
  SELECT
    hold_id,
    to_wallet_id,
    currency,
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

-- If a hold has several lines, any of their wallets will do, because several lines are reported anyway.
released AS MATERIALIZED (
  SELECT
    hold_id,
    min(to_wallet_id) AS wallet_id,
    min(currency) AS currency
  FROM recent
  WHERE batch_id IN (SELECT run_batch.batch_id FROM run_batch)
  GROUP BY hold_id
)

SELECT
  released.hold_id,
  fact.reference,
  fact.amount_minor,
  said.paid_minor,
  said.earnings,
  fact.payee_wallet_id,
  released.wallet_id AS credited_wallet_id
FROM released
CROSS JOIN LATERAL (
  SELECT
    sum(transaction.amount_minor) AS paid_minor,
    count(*) FILTER (WHERE transaction.type = 'EARNING') AS earnings
  FROM buffer.transaction
  -- Two conditions, because each type has its own index.
  WHERE
    transaction.hold_id = released.hold_id
    AND (transaction.type = 'EARNING' OR (transaction.type <> 'EARNING' AND transaction.type <> 'PENDING_EARNING'))
) AS said
LEFT JOIN LATERAL (
  SELECT
    hold.reference,
    hold.amount_minor,
    hold.payee_wallet_id,
    hold.currency
  FROM buffer.hold
  WHERE hold.hold_id = released.hold_id
  ORDER BY hold.hold_id
  LIMIT 1
) AS fact ON TRUE
WHERE
  said.earnings <> 1
  OR said.paid_minor IS DISTINCT FROM fact.amount_minor
  OR released.wallet_id IS DISTINCT FROM fact.payee_wallet_id
  OR released.currency IS DISTINCT FROM fact.currency
ORDER BY released.hold_id
