-- The wallets of an owner with their balances and what they owe. Reads only.
SELECT
  wallet_id,
  currency,
  balance_minor,
  debt_minor
FROM buffer.wallet
WHERE owner = CAST(:owner AS text)
ORDER BY wallet_id
