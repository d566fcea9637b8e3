-- Each transaction's balance_after is its wallet's balance before it, changed by its amount. A transaction between
-- two balances has one of each wallet: balance_after is that of the wallet that it enters.
WITH
line AS (
  SELECT
    transaction_id,
    balance_after_minor,
    CASE WHEN to_account = 'BALANCE' THEN to_wallet_id ELSE from_wallet_id END AS wallet_id,
    CASE WHEN to_account = 'BALANCE' THEN amount_minor ELSE -amount_minor END AS change_minor
  FROM buffer.transaction
  WHERE balance_after_minor IS NOT NULL
  UNION ALL
  SELECT
    transaction_id,
    from_balance_after_minor,
    from_wallet_id,
    -amount_minor
  FROM buffer.transaction
  WHERE from_balance_after_minor IS NOT NULL
),

followed AS (
  SELECT
    transaction_id,
    wallet_id,
    balance_after_minor,
    sum(change_minor) OVER (PARTITION BY wallet_id ORDER BY transaction_id) AS expected_minor
  FROM line
)

SELECT
  transaction_id,
  wallet_id,
  balance_after_minor,
  expected_minor
FROM followed
WHERE balance_after_minor <> expected_minor
ORDER BY transaction_id
