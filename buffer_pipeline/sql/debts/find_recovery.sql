-- The batch with this reference, and if it is a recovery, what it paid of the debts of :owner: a row for each debt, or
-- one without a debt. Reads only.
SELECT
  batch.batch_id,
  batch.kind,
  batch.source,
  batch.reason,
  batch.reference,
  batch.named_hold_id,
  line.debt_id,
  line.wallet_id,
  line.currency,
  line.amount_minor
FROM buffer.batch
LEFT JOIN LATERAL (
  SELECT
    debt.debt_id,
    debt.wallet_id,
    transaction.currency,
    transaction.amount_minor
  FROM buffer.debt
  INNER JOIN buffer.transaction ON debt.debt_id = transaction.debt_id
  WHERE
    debt.wallet_id = any(ARRAY(
      SELECT wallet.wallet_id
      FROM buffer.wallet
      WHERE wallet.owner = CAST(:owner AS text)
    ))
    AND transaction.type = 'RECOVERY'
    AND transaction.batch_id = batch.batch_id
  ORDER BY transaction.transaction_id
) AS line ON TRUE
WHERE batch.reference = CAST(:reference AS text)
