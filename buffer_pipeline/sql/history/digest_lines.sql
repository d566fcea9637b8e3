-- The digests of the lines behind :after_id up to :through_id, one behind the other by id; NULLs where there are none.
SELECT
  min(line.transaction_id) AS first_id,
  max(line.transaction_id) AS through_id,
  count(*) AS lines,
  string_agg(line.line_digest, CAST('' AS bytea) ORDER BY line.transaction_id) AS line_digests
FROM (
  SELECT
    transaction.transaction_id,
    buffer.line_digest(transaction) AS line_digest
  FROM buffer.transaction
  WHERE
    transaction.transaction_id > CAST(:after_id AS bigint)
    AND transaction.transaction_id <= CAST(:through_id AS bigint)
  ORDER BY transaction.transaction_id
) AS line
