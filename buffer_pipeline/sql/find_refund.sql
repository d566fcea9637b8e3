-- What the reference of a wallet movement or of a refund without a backjob stands for, and whether a later refund
-- took more of the same hold.
SELECT
  transaction.transaction_id,
  transaction.type,
  transaction.hold_id,
  transaction.currency,
  transaction.amount_minor,
  transaction.reference,
  batch.source,
  batch.reason,
  (
    SELECT count(*) FROM buffer.transaction AS later
    WHERE
      later.hold_id = transaction.hold_id
      AND later.type = 'REFUND'
      AND later.transaction_id > transaction.transaction_id
  ) > 0 AS more_was_refunded
FROM buffer.transaction
LEFT JOIN buffer.batch ON transaction.batch_id = batch.batch_id
WHERE transaction.reference = CAST(:reference AS text)
