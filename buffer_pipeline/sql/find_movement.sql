-- The wallet movement with this reference, and the balance of its wallet now.
SELECT
  transaction.transaction_id,
  transaction.type,
  wallet.owner,
  transaction.currency,
  transaction.amount_minor,
  wallet.balance_minor
FROM buffer.transaction
INNER JOIN buffer.wallet
  ON wallet.wallet_id = coalesce(transaction.to_wallet_id, transaction.from_wallet_id)
WHERE transaction.reference = :reference
