-- Each wallet that the run credited has the balance from before the run, changed by every line since, and its
-- last line records the same balance.
-- The run's batches are those of :source with lines recorded at or after :since. Each LATERAL subquery reads
-- one wallet by an index, and only its lines since the balance last moved. Incoming lines are searched
-- generation by generation (docs/decisions/0019), backwards until one is found.
WITH RECURSIVE
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
  -- A recovery for a bank enters no wallet. It leaves one that was credited before, in the same batch.
  WHERE batch_id IN (SELECT run_batch.batch_id FROM run_batch) AND to_wallet_id IS NOT NULL
  GROUP BY to_wallet_id
),

-- The last line before the run that credited the wallet's balance, if there is one.
sought AS (
  SELECT
    wallet_id,
    first_id,
    (first_id >> 17) + 1 AS generation,
    CAST(NULL AS bigint) AS before_id
  FROM credited
  UNION ALL
  SELECT
    sought.wallet_id,
    sought.first_id,
    sought.generation - 1 AS generation,
    (
      SELECT max(transaction.transaction_id)
      FROM buffer.transaction
      WHERE
        transaction.transaction_id >> 17 = sought.generation - 1
        AND transaction.to_wallet_id = sought.wallet_id
        AND transaction.transaction_id < sought.first_id
        AND transaction.to_account = 'BALANCE'
    ) AS before_id
  FROM sought
  WHERE sought.before_id IS NULL AND sought.generation > 0
),

found AS MATERIALIZED (
  SELECT
    wallet_id,
    first_id,
    before_id
  FROM sought
  WHERE before_id IS NOT NULL OR generation = 0
),

newest AS MATERIALIZED (
  SELECT max(transaction_id) AS transaction_id
  FROM buffer.transaction
),

moved AS MATERIALIZED (
  SELECT
    found.wallet_id,
    CASE
      WHEN coalesce(in_before.transaction_id, 0) > coalesce(out_before.transaction_id, 0)
        THEN in_before.balance_after_minor
      ELSE coalesce(out_before.balance_after_minor, 0)
    END AS before_minor,
    coalesce(in_since.amount_minor, 0) - coalesce(out_since.amount_minor, 0) AS change_minor,
    greatest(in_since.last_id, out_since.last_id) AS last_id
  FROM found
  LEFT JOIN LATERAL (
    SELECT
      transaction.transaction_id,
      transaction.balance_after_minor
    FROM buffer.transaction
    WHERE transaction.transaction_id = found.before_id
    ORDER BY transaction.transaction_id
    LIMIT 1
  ) AS in_before ON TRUE
  LEFT JOIN LATERAL (
    SELECT
      transaction.transaction_id,
      coalesce(transaction.from_balance_after_minor, transaction.balance_after_minor) AS balance_after_minor
    FROM buffer.transaction
    WHERE
      transaction.from_wallet_id = found.wallet_id
      AND transaction.from_wallet_id IS DISTINCT FROM transaction.to_wallet_id
      AND transaction.transaction_id < found.first_id
      AND transaction.from_account = 'BALANCE'
    ORDER BY transaction.transaction_id DESC
    LIMIT 1
  ) AS out_before ON TRUE
  CROSS JOIN LATERAL (
    SELECT
      sum(line.amount_minor) AS amount_minor,
      max(line.transaction_id) AS last_id
    FROM pg_catalog.generate_series(
      found.first_id >> 17, (SELECT newest.transaction_id >> 17 FROM newest)
    ) AS generation (generation)
    CROSS JOIN LATERAL (
      SELECT
        transaction.transaction_id,
        transaction.amount_minor
      FROM buffer.transaction
      WHERE
        transaction.transaction_id >> 17 = generation.generation
        AND transaction.to_wallet_id = found.wallet_id
        AND transaction.transaction_id >= found.first_id
        AND transaction.to_account = 'BALANCE'
      ORDER BY transaction.transaction_id
    ) AS line
  ) AS in_since
  CROSS JOIN LATERAL (
    SELECT
      sum(transaction.amount_minor) AS amount_minor,
      max(transaction.transaction_id) AS last_id
    FROM buffer.transaction
    WHERE
      transaction.from_wallet_id = found.wallet_id
      AND transaction.from_wallet_id IS DISTINCT FROM transaction.to_wallet_id
      AND transaction.transaction_id >= found.first_id
      AND transaction.from_account = 'BALANCE'
  ) AS out_since
),

derived AS (
  SELECT
    moved.wallet_id,
    moved.before_minor,
    moved.before_minor + moved.change_minor AS balance_minor,
    (
      SELECT
        CASE
          WHEN transaction.to_wallet_id = moved.wallet_id THEN transaction.balance_after_minor
          ELSE coalesce(transaction.from_balance_after_minor, transaction.balance_after_minor)
        END
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
