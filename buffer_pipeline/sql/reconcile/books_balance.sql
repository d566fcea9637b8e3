-- Per currency, what the wallets hold is what came in from outside less what went out.
WITH
held AS (
  SELECT
    currency,
    sum(balance_minor) + sum(pending_earnings_minor) AS wallets_minor
  FROM buffer.wallet
  GROUP BY currency
),

moved AS (
  SELECT
    currency,
    sum(
      CASE WHEN from_wallet_id IS NULL THEN amount_minor ELSE 0 END
      - CASE WHEN to_wallet_id IS NULL THEN amount_minor ELSE 0 END
    ) AS transactions_minor
  FROM buffer.transaction
  GROUP BY currency
)

SELECT
  currency,
  coalesce(held.wallets_minor, 0) AS wallets_minor,
  coalesce(moved.transactions_minor, 0) AS transactions_minor
FROM held
FULL JOIN moved USING (currency)
WHERE coalesce(held.wallets_minor, 0) <> coalesce(moved.transactions_minor, 0)
ORDER BY currency
