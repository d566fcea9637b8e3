-- The early release with this reference, with what it released of :hold_ids: a row for each transaction, or
-- one without a transaction if it released others. left_minor is what an early release of a part left.
SELECT
  batch.batch_id,
  batch.kind,
  batch.source,
  batch.reason,
  batch.named_hold_id,
  batch.left_minor,
  line.type,
  line.currency,
  line.amount_minor
FROM buffer.batch
LEFT JOIN LATERAL (
  SELECT
    transaction.type,
    transaction.currency,
    transaction.amount_minor
  FROM buffer.transaction
  -- Two partial indexes have a hold's transactions: one the EARNINGs, one the others.
  WHERE
    transaction.hold_id = any(CAST(:hold_ids AS bigint[]))
    AND (transaction.type = 'EARNING' OR transaction.type <> 'EARNING')
    AND transaction.batch_id = batch.batch_id
    AND transaction.type IN ('EARNING', 'EARNING_PART')
  ORDER BY transaction.transaction_id
) AS line ON TRUE
WHERE batch.reference = CAST(:reference AS text)
