-- How late the schedule's releases since :since were: releases and their seconds by how many of :bounds_seconds,
-- which are whole and in order, lie below. One second less than the next whole one is at or above a bound
-- exactly where the lateness is above it.
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
