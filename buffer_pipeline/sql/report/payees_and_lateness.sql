-- The number of different payees that were released to, and the median lateness of scheduled releases, for
-- spans of length :span from :since to before :until, per currency and for all of them together (currency
-- NULL).
-- The hourly counts cannot give these figures: a payee in two hours is one payee, and medians cannot be
-- added.
SELECT
  date_bin(
    CAST(:span AS interval), transaction.recorded_at, CAST(:since AS timestamptz)
  ) AS begins_at,
  transaction.currency,
  count(DISTINCT wallet.owner) AS payees,
  percentile_cont(0.5) WITHIN GROUP (
    ORDER BY CAST(extract(EPOCH FROM transaction.recorded_at - transaction.release_date) AS double precision)
  ) FILTER (WHERE batch.kind = 'DUE') AS lateness_median_seconds
FROM buffer.transaction
INNER JOIN buffer.wallet ON transaction.to_wallet_id = wallet.wallet_id
INNER JOIN buffer.batch ON transaction.batch_id = batch.batch_id
WHERE
  transaction.type IN ('EARNING', 'EARNING_PART')
  AND transaction.recorded_at >= CAST(:since AS timestamptz)
  AND transaction.recorded_at < CAST(:until AS timestamptz)
GROUP BY GROUPING SETS ((begins_at, transaction.currency), (begins_at))
ORDER BY begins_at, transaction.currency
