-- Locks an owner's wallet in a currency.
SELECT
  wallet_id,
  balance_minor
FROM buffer.wallet
WHERE owner = :owner AND currency = :currency
FOR NO KEY UPDATE
