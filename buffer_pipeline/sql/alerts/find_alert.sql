-- Whether operators were told of :subject in :period.
SELECT count(*) > 0 AS told
FROM buffer.alert
WHERE kind = :kind AND period = CAST(:period AS timestamptz) AND subject = :subject
