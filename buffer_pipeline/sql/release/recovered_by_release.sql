-- What the release :batch_id has paid of the debts of the wallets :wallet_ids, by currency. Reads only.
SELECT
  transaction.currency,
  CAST(sum(transaction.amount_minor) AS bigint) AS amount_minor
FROM buffer.debt
INNER JOIN buffer.transaction ON debt.debt_id = transaction.debt_id
WHERE
  debt.wallet_id = any(CAST(:wallet_ids AS bigint[]))
  AND transaction.type = 'RECOVERY'
  AND transaction.batch_id = CAST(:batch_id AS bigint)
GROUP BY transaction.currency
ORDER BY transaction.currency
