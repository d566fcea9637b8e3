-- The batch with this reference, and if it has forgiven a debt, which one and how much. Reads only.
SELECT
  batch.batch_id,
  batch.kind,
  batch.source,
  batch.reason,
  batch.reference,
  batch.named_hold_id,
  written_off.debt_id,
  written_off.currency,
  written_off.amount_minor
FROM buffer.batch
LEFT JOIN LATERAL (
  SELECT
    transaction.debt_id,
    transaction.currency,
    transaction.amount_minor
  FROM buffer.transaction
  WHERE
    transaction.debt_id = CAST(:debt_id AS bigint)
    AND transaction.type = 'WRITE_OFF'
    AND transaction.batch_id = batch.batch_id
  ORDER BY transaction.transaction_id
  LIMIT 1
) AS written_off ON TRUE
WHERE batch.reference = CAST(:reference AS text)
