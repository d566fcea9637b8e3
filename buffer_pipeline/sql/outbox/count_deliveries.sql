-- How many deliveries wait and how many are dead, by endpoint. Notifications that are not dispatched yet
-- count as waiting at the endpoint NULL.
SELECT
  endpoint,
  count(*) FILTER (WHERE state = 'WAITING') AS waiting,
  count(*) FILTER (WHERE state = 'DEAD') AS dead,
  min(created_at) FILTER (WHERE state = 'WAITING') AS oldest_waiting
FROM (
  SELECT
    endpoint,
    state,
    created_at
  FROM buffer.delivery
  WHERE state = 'WAITING'
  UNION ALL
  SELECT
    endpoint,
    state,
    created_at
  FROM buffer.delivery
  WHERE state = 'DEAD'
  UNION ALL
  SELECT
    NULL,
    'WAITING',
    created_at
  FROM buffer.notification
  WHERE dispatched_at IS NULL
) AS unsettled
GROUP BY endpoint
ORDER BY endpoint NULLS FIRST
