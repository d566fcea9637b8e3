-- Open debts, by currency. Reads them by the index of open debts.
SELECT
  currency,
  count(*) AS debts,
  CAST(sum(outstanding_minor) AS bigint) AS outstanding_minor
FROM buffer.debt
WHERE outstanding_minor > 0
GROUP BY currency
ORDER BY currency
