-- The batches of payouts that alerts of :period have named.
SELECT DISTINCT unnest(payout_batch_ids) AS payout_batch_id
FROM buffer.alert
WHERE kind = 'STUCK_PAYOUT' AND period = CAST(:period AS timestamptz)
