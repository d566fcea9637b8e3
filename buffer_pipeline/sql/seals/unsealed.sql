-- How many transactions there are after the last seal, and when the first of them was recorded.
SELECT
  count(*) AS lines,
  min(transaction.recorded_at) AS since
FROM buffer.transaction
WHERE transaction.transaction_id > coalesce(
  (SELECT max(seal.through_id) FROM buffer.seal), CAST(-9223372036854775808 AS bigint)
)
