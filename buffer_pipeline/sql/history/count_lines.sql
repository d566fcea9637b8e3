-- How many lines there are behind :after_id.
SELECT count(*) AS lines
FROM buffer.transaction
WHERE transaction_id > CAST(:after_id AS bigint)
