-- The batches of payouts that were made from :day_start to :day_end, by id, with how many of their payouts status
-- files have marked as paid and returned since. What was paid and came back is in both.
SELECT
  payout_batch.payout_batch_id,
  payout_batch.currency,
  payout_batch.method,
  payout_batch.state,
  payout_batch.payouts,
  payout_batch.amount_minor,
  CAST(answered.paid AS bigint) AS paid,
  CAST(answered.returned AS bigint) AS returned,
  payout_batch.made_by,
  payout_batch.made_at,
  payout_batch.approved_by,
  payout_batch.sent_by,
  payout_batch.cancelled_by
FROM buffer.payout_batch
CROSS JOIN LATERAL (
  SELECT
    coalesce(sum(file.paid), 0) AS paid,
    coalesce(sum(file.returned), 0) AS returned
  FROM buffer.payout_status_file AS file
  WHERE file.payout_batch_id = payout_batch.payout_batch_id
) AS answered
WHERE
  payout_batch.made_at >= CAST(:day_start AS timestamptz)
  AND payout_batch.made_at < CAST(:day_end AS timestamptz)
ORDER BY payout_batch.payout_batch_id
