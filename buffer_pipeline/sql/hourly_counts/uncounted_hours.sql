-- The hours from :since to before :until that are not counted yet, in order.
WITH
asked AS (
  SELECT generate_series(
    CAST(:since AS timestamptz), CAST(:until AS timestamptz) - interval '1 hour', interval '1 hour'
  ) AS hour
)

SELECT asked.hour
FROM asked
WHERE NOT EXISTS (SELECT FROM buffer.counted_hour
WHERE counted_hour.hour = asked.hour)
ORDER BY asked.hour
