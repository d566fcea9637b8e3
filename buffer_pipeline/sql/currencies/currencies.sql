-- The currencies of the books, each with its decimal places. Reads only.
SELECT
  currency,
  places
FROM buffer.currency
ORDER BY currency
