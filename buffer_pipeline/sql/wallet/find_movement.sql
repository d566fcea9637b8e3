-- The wallet movement with this reference, and the balance of its wallet now.
-- If there is one, writes the WAL message of hours/enter_hour.sql, because a movement marks its hour only
-- when it is written.
SELECT
  transaction.transaction_id,
  transaction.type,
  wallet.owner,
  transaction.currency,
  transaction.amount_minor,
  wallet.balance_minor,
  (
    SELECT
      pg_catalog.pg_logical_emit_message(pg_catalog.pg_current_xact_id() IS NOT NULL, 'buffer_pipeline', '')
  ) IS NOT NULL AS is_confirmed
FROM buffer.transaction
INNER JOIN buffer.wallet
  ON wallet.wallet_id = coalesce(transaction.to_wallet_id, transaction.from_wallet_id)
WHERE transaction.reference = :reference
