-- The wallets :ids, those of :currency if it is given. Reads only; at most as many rows as ids.
SELECT
  wallet.wallet_id,
  wallet.owner,
  wallet.currency,
  currency.places,
  wallet.balance_minor,
  wallet.pending_earnings_minor,
  wallet.debt_minor,
  wallet.owner_freeze_id IS NOT NULL AS is_frozen
FROM buffer.wallet
INNER JOIN buffer.currency ON wallet.currency = currency.currency
WHERE
  wallet.wallet_id = any(CAST(:ids AS bigint[]))
  AND (CAST(:currency AS text) IS NULL OR wallet.currency = CAST(:currency AS text))
