-- Each wallet that the run credited has the balance that stood before the run's first line to it, changed
-- by every line since, and the last of these says the same.
-- The run's batches are those of :source with lines recorded at or after :since; each subquery that is
-- LATERAL reads one wallet by an index, and of its lines those since the balance last moved.
WITH
recent AS MATERIALIZED (
  SELECT
    transaction_id,
    to_wallet_id,
    batch_id
  FROM buffer.transaction
  WHERE recorded_at >= CAST(:since AS timestamptz) AND batch_id IS NOT NULL
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

credited AS MATERIALIZED (
  SELECT
    to_wallet_id AS wallet_id,
    min(transaction_id) AS first_id
  FROM recent
  WHERE batch_id IN (SELECT run_batch.batch_id FROM run_batch)
  GROUP BY to_wallet_id
),

moved AS MATERIALIZED (
  SELECT
    credited.wallet_id,
    CASE
      WHEN coalesce(in_before.transaction_id, 0) > coalesce(out_before.transaction_id, 0)
        THEN in_before.balance_after_minor
      ELSE coalesce(out_before.balance_after_minor, 0)
    END AS before_minor,
    coalesce(in_since.amount_minor, 0) - coalesce(out_since.amount_minor, 0) AS change_minor,
    greatest(in_since.last_id, out_since.last_id) AS last_id
  FROM credited
  LEFT JOIN LATERAL (
    SELECT
      transaction.transaction_id,
      transaction.balance_after_minor
    FROM buffer.transaction
    WHERE
      transaction.to_wallet_id = credited.wallet_id
      AND transaction.transaction_id < credited.first_id
      AND transaction.to_account = 'BALANCE'
    ORDER BY transaction.transaction_id DESC
    LIMIT 1
  ) AS in_before ON TRUE
  LEFT JOIN LATERAL (
    SELECT
      transaction.transaction_id,
      transaction.balance_after_minor
    FROM buffer.transaction
    WHERE
      transaction.from_wallet_id = credited.wallet_id
      AND transaction.from_wallet_id IS DISTINCT FROM transaction.to_wallet_id
      AND transaction.transaction_id < credited.first_id
      AND transaction.from_account = 'BALANCE'
    ORDER BY transaction.transaction_id DESC
    LIMIT 1
  ) AS out_before ON TRUE
  CROSS JOIN LATERAL (
    SELECT
      sum(transaction.amount_minor) AS amount_minor,
      max(transaction.transaction_id) AS last_id
    FROM buffer.transaction
    WHERE
      transaction.to_wallet_id = credited.wallet_id
      AND transaction.transaction_id >= credited.first_id
      AND transaction.to_account = 'BALANCE'
  ) AS in_since
  CROSS JOIN LATERAL (
    SELECT
      sum(transaction.amount_minor) AS amount_minor,
      max(transaction.transaction_id) AS last_id
    FROM buffer.transaction
    WHERE
      transaction.from_wallet_id = credited.wallet_id
      AND transaction.from_wallet_id IS DISTINCT FROM transaction.to_wallet_id
      AND transaction.transaction_id >= credited.first_id
      AND transaction.from_account = 'BALANCE'
  ) AS out_since
),

derived AS (
  SELECT
    moved.wallet_id,
    moved.before_minor,
    moved.before_minor + moved.change_minor AS balance_minor,
    (
      SELECT transaction.balance_after_minor
      FROM buffer.transaction
      WHERE transaction.transaction_id = moved.last_id
    ) AS balance_after_minor
  FROM moved
)

SELECT
  derived.wallet_id,
  fact.owner,
  fact.currency,
  fact.balance_minor,
  derived.balance_minor AS transactions_balance_minor,
  derived.balance_after_minor,
  derived.before_minor
FROM derived
LEFT JOIN LATERAL (
  SELECT
    wallet.owner,
    wallet.currency,
    wallet.balance_minor
  FROM buffer.wallet
  WHERE wallet.wallet_id = derived.wallet_id
  ORDER BY wallet.wallet_id
  LIMIT 1
) AS fact ON TRUE
WHERE
  fact.balance_minor IS DISTINCT FROM derived.balance_minor
  OR fact.balance_minor IS DISTINCT FROM derived.balance_after_minor
ORDER BY derived.wallet_id
