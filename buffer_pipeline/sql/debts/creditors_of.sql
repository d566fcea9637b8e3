-- The wallets to which :wallet_ids owe something. Reads only.
SELECT DISTINCT creditor_wallet_id AS wallet_id
FROM buffer.debt
WHERE
  wallet_id = any(CAST(:wallet_ids AS bigint[]))
  AND outstanding_minor > 0
  AND creditor_wallet_id IS NOT NULL
ORDER BY creditor_wallet_id
