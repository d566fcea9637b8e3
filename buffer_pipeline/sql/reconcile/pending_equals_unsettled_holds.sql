-- A wallet's pending earnings are what its unsettled holds still hold.
WITH
unsettled AS (
  SELECT
    payee_wallet_id AS wallet_id,
    sum(amount_minor) AS amount_minor
  FROM buffer.unsettled_hold
  GROUP BY payee_wallet_id
)

SELECT
  wallet.wallet_id,
  wallet.owner,
  wallet.currency,
  wallet.pending_earnings_minor,
  coalesce(unsettled.amount_minor, 0) AS unsettled_holds_minor
FROM buffer.wallet
LEFT JOIN unsettled ON wallet.wallet_id = unsettled.wallet_id
WHERE wallet.pending_earnings_minor <> coalesce(unsettled.amount_minor, 0)
ORDER BY wallet.wallet_id
