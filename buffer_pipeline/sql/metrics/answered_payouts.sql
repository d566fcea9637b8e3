-- How many payouts status files have marked as paid and as returned, by currency: one row is read for each file.
SELECT
  payout_batch.currency,
  CAST(sum(file.paid) AS bigint) AS paid,
  CAST(sum(file.returned) AS bigint) AS returned
FROM buffer.payout_status_file AS file
INNER JOIN buffer.payout_batch ON file.payout_batch_id = payout_batch.payout_batch_id
GROUP BY payout_batch.currency
ORDER BY payout_batch.currency
