-- Locks the wallet of an owner in a currency.
SELECT
  wallet_id,
  balance_minor
FROM buffer.wallet
WHERE owner = :owner AND currency = :currency
FOR NO KEY UPDATE
