-- The refunds of a batch are of one hold, or of shares of the earning that the batch names, at its time. One of
-- them has the reference.
WITH
line AS (
  SELECT
    transaction.batch_id,
    min(transaction.transaction_id) AS transaction_id,
    count(*) AS refunds,
    count(transaction.reference) AS references_given,
    count(*) FILTER (
      WHERE
        transaction.recorded_at <> batch.recorded_at
        OR batch.earning_id <> coalesce(hold.earning_id, hold.hold_id)
    ) AS strays,
    min(batch.earning_id) AS earning_id
  FROM buffer.transaction
  LEFT JOIN buffer.batch ON transaction.batch_id = batch.batch_id
  LEFT JOIN buffer.hold ON transaction.hold_id = hold.hold_id
  WHERE transaction.type = 'REFUND' AND transaction.batch_id IS NOT NULL
  GROUP BY transaction.batch_id
)

SELECT
  batch_id,
  transaction_id,
  earning_id,
  refunds,
  references_given,
  strays
FROM line
WHERE references_given <> 1 OR strays > 0 OR (refunds > 1 AND earning_id IS NULL)
ORDER BY batch_id
