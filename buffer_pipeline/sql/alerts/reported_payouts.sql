-- The payouts without a batch that alerts of :period have named.
SELECT DISTINCT unnest(payout_ids) AS payout_id
FROM buffer.alert
WHERE kind = 'STUCK_PAYOUT' AND period = CAST(:period AS timestamptz)
