-- The ids of the lines after :after_id up to :through_id, in order.
SELECT array_agg(transaction_id ORDER BY transaction_id) AS transaction_ids
FROM buffer.transaction
WHERE
  transaction_id > CAST(:after_id AS bigint)
  AND transaction_id <= CAST(:through_id AS bigint)
