-- How late the scheduled releases since :since were: for each bucket, the number of releases and the sum of
-- their seconds. A bucket is the number of :bounds_seconds (whole and ascending) that are below the lateness.
-- The lateness is rounded up and then reduced by one second, because width_bucket also counts a bound that
-- equals its value.
SELECT
  width_bucket(ceil(seconds) - 1, CAST(:bounds_seconds AS double precision [])) AS bounds_below,
  count(*) AS releases,
  sum(seconds) AS seconds
FROM (
  SELECT CAST(extract(EPOCH FROM transaction.recorded_at - transaction.release_date) AS double precision) AS seconds
  FROM buffer.transaction
  INNER JOIN buffer.batch ON transaction.batch_id = batch.batch_id
  WHERE
    transaction.type = 'EARNING'
    AND batch.kind = 'DUE'
    AND transaction.recorded_at >= CAST(:since AS timestamptz)
) AS released
GROUP BY bounds_below
ORDER BY bounds_below
