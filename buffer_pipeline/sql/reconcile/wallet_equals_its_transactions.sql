-- Each wallet's balance and pending earnings are what its transactions add up to.
WITH
movement AS (
  SELECT
    to_wallet_id AS wallet_id,
    CASE WHEN to_account = 'BALANCE' THEN amount_minor ELSE 0 END AS balance_minor,
    CASE WHEN to_account = 'PENDING_EARNINGS' THEN amount_minor ELSE 0 END AS pending_minor
  FROM buffer.transaction
  WHERE to_wallet_id IS NOT NULL
  UNION ALL
  SELECT
    from_wallet_id,
    CASE WHEN from_account = 'BALANCE' THEN -amount_minor ELSE 0 END,
    CASE WHEN from_account = 'PENDING_EARNINGS' THEN -amount_minor ELSE 0 END
  FROM buffer.transaction
  WHERE from_wallet_id IS NOT NULL
),

derived AS (
  SELECT
    wallet_id,
    sum(balance_minor) AS balance_minor,
    sum(pending_minor) AS pending_minor
  FROM movement
  GROUP BY wallet_id
)

SELECT
  wallet.wallet_id,
  wallet.owner,
  wallet.currency,
  wallet.balance_minor,
  coalesce(derived.balance_minor, 0) AS transactions_balance_minor,
  wallet.pending_earnings_minor,
  coalesce(derived.pending_minor, 0) AS transactions_pending_minor
FROM buffer.wallet
LEFT JOIN derived ON wallet.wallet_id = derived.wallet_id
WHERE
  wallet.balance_minor <> coalesce(derived.balance_minor, 0)
  OR wallet.pending_earnings_minor <> coalesce(derived.pending_minor, 0)
ORDER BY wallet.wallet_id
