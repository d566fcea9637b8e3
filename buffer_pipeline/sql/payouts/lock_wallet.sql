-- Locks the wallet of an owner in a currency, and returns what decides whether it may be paid out.
SELECT
  wallet_id,
  balance_minor,
  owner_freeze_id
FROM buffer.wallet
WHERE owner = :owner AND currency = :currency
FOR NO KEY UPDATE
