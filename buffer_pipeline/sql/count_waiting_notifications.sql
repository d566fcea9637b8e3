-- How many notifications wait to be delivered.
SELECT count(*) AS waiting
FROM buffer.notification
WHERE delivered_at IS NULL
