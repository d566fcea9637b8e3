-- A wallet names what is outstanding of its debts.
WITH
owed AS (
  SELECT
    wallet_id,
    sum(outstanding_minor) AS outstanding_minor
  FROM buffer.debt
  WHERE outstanding_minor > 0
  GROUP BY wallet_id
)

SELECT
  wallet.wallet_id,
  wallet.owner,
  wallet.currency,
  wallet.debt_minor,
  coalesce(owed.outstanding_minor, 0) AS debts_outstanding_minor
FROM buffer.wallet
LEFT JOIN owed ON wallet.wallet_id = owed.wallet_id
WHERE wallet.debt_minor <> coalesce(owed.outstanding_minor, 0)
ORDER BY wallet.wallet_id
