-- The wallet of an owner in a currency. Reads only.
SELECT
  wallet_id,
  balance_minor
FROM buffer.wallet
WHERE owner = CAST(:owner AS text) AND currency = CAST(:currency AS text)
