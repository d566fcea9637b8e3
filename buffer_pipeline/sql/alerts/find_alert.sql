-- Whether operators were told in :period.
SELECT count(*) > 0 AS told
FROM buffer.alert
WHERE kind = :kind AND period = CAST(:period AS timestamptz)
