-- The transactions of :owner's wallets up to and including :as_of (all of them where it is null), the oldest first,
-- each with what its wallet held behind it.
-- What came in is asked of each generation (docs/decisions/0019); each subquery that is LATERAL reads a wallet's lines
-- by an index, and has an ORDER BY so that it stays a subquery.
WITH
generation AS MATERIALIZED (
  SELECT pg_catalog.generate_series(0, newest.transaction_id >> 17) AS generation
  FROM (
    SELECT max(transaction.transaction_id) AS transaction_id
    FROM buffer.transaction
  ) AS newest
),

line AS (
  SELECT
    wallet.wallet_id,
    into_wallet.*
  FROM buffer.wallet
  CROSS JOIN generation
  CROSS JOIN LATERAL (
    SELECT transaction.*
    FROM buffer.transaction
    WHERE
      transaction.transaction_id >> 17 = generation.generation
      AND transaction.to_wallet_id = wallet.wallet_id
    ORDER BY transaction.transaction_id
  ) AS into_wallet
  WHERE wallet.owner = :owner
  UNION ALL
  -- As the index of what leaves a wallet has it: what stays within one came in as well.
  SELECT
    wallet.wallet_id,
    out_of_wallet.*
  FROM buffer.wallet
  CROSS JOIN LATERAL (
    SELECT transaction.*
    FROM buffer.transaction
    WHERE
      transaction.from_wallet_id = wallet.wallet_id
      AND transaction.from_wallet_id IS DISTINCT FROM transaction.to_wallet_id
    ORDER BY transaction.transaction_id
  ) AS out_of_wallet
  WHERE wallet.owner = :owner
),

-- Within one wallet a release is both: out of the pending earnings and into the balance.
changed AS (
  SELECT
    line.*,
    CASE
      WHEN to_wallet_id = wallet_id AND to_account = 'BALANCE' THEN amount_minor
      WHEN from_wallet_id = wallet_id AND from_account = 'BALANCE' THEN -amount_minor
      ELSE 0
    END AS change_minor,
    CASE
      WHEN to_wallet_id = wallet_id AND to_account = 'PENDING_EARNINGS' THEN amount_minor
      WHEN from_wallet_id = wallet_id AND from_account = 'PENDING_EARNINGS' THEN -amount_minor
      ELSE 0
    END AS pending_change_minor
  FROM line
),

-- Cut off behind it, so that each line keeps the sums of all that stand before it.
summed AS (
  SELECT
    changed.*,
    sum(change_minor) OVER so_far AS balance_after,
    sum(pending_change_minor) OVER so_far AS pending_earnings_after
  FROM changed
  WINDOW so_far AS (
    PARTITION BY wallet_id
    ORDER BY transaction_id
  )
)

SELECT
  summed.transaction_id,
  summed.type,
  summed.amount_minor,
  summed.currency,
  summed.change_minor,
  summed.pending_change_minor,
  summed.balance_after AS balance_after_minor,
  summed.pending_earnings_after AS pending_earnings_after_minor,
  summed.hold_id,
  summed.backjob_id,
  summed.reference,
  held.job,
  held.title,
  summed.recorded_at
FROM summed
LEFT JOIN LATERAL (
  SELECT
    hold.job,
    hold.title
  FROM buffer.hold
  WHERE hold.hold_id = summed.hold_id
  ORDER BY hold.hold_id
  LIMIT 1
) AS held ON TRUE
WHERE CAST(:as_of AS timestamptz) IS NULL OR summed.recorded_at <= CAST(:as_of AS timestamptz)
ORDER BY summed.transaction_id
