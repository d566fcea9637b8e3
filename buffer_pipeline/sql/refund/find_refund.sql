-- The transaction with the reference of a wallet movement or of a refund without a backjob.
-- Of a refund: the hold by whose id it was asked; the holds that it took from, and the sum; and whether it left
-- nothing: a later refund of the same hold took nothing more, or nothing was left in the shares of the earning.
SELECT
  transaction.transaction_id,
  transaction.type,
  coalesce(batch.earning_id, transaction.hold_id) AS hold_id,
  transaction.currency,
  coalesce(of_earning.amount_minor, transaction.amount_minor) AS amount_minor,
  coalesce(of_earning.hold_ids, ARRAY[transaction.hold_id]) AS hold_ids,
  transaction.reference,
  batch.source,
  batch.reason,
  CASE
    WHEN batch.earning_id IS NOT NULL THEN batch.left_minor = 0
    ELSE NOT EXISTS (
      SELECT FROM buffer.transaction AS later
      WHERE
        later.hold_id = transaction.hold_id
        AND later.type <> 'EARNING'
        AND later.type = 'REFUND'
        AND later.transaction_id > transaction.transaction_id
    )
    AND NOT EXISTS (
      SELECT FROM buffer.hold_status
      WHERE hold_status.hold_id = transaction.hold_id AND hold_status.state <> 'REFUNDED'
    )
  END AS left_nothing
FROM buffer.transaction
LEFT JOIN buffer.batch ON transaction.batch_id = batch.batch_id
LEFT JOIN LATERAL (
  SELECT
    pg_catalog.array_agg(part.hold_id ORDER BY part.hold_id) AS hold_ids,
    CAST(sum(part.amount_minor) AS bigint) AS amount_minor
  FROM buffer.transaction AS part
  WHERE
    part.hold_id = any(ARRAY(
      SELECT hold.hold_id FROM buffer.hold
      WHERE hold.hold_id = batch.earning_id OR hold.earning_id = batch.earning_id
    ))
    AND part.type <> 'EARNING'
    AND part.type = 'REFUND'
    AND part.batch_id = transaction.batch_id
) AS of_earning ON batch.earning_id IS NOT NULL
WHERE transaction.reference = CAST(:reference AS text)
