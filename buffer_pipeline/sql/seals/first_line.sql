-- The first line after :after_id up to :through_id, if there is one.
SELECT transaction_id
FROM buffer.transaction
WHERE
  transaction_id > CAST(:after_id AS bigint)
  AND transaction_id <= CAST(:through_id AS bigint)
ORDER BY transaction_id
LIMIT 1
