-- Whether operators got this alert in :period.
SELECT count(*) > 0 AS is_sent
FROM buffer.alert
WHERE kind = :kind AND period = CAST(:period AS timestamptz)
