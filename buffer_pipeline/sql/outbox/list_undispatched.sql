-- Notifications that have no deliveries yet, the newest first. A NULL argument does not filter.
SELECT
  notification_id,
  type,
  owner,
  created_at
FROM buffer.notification
WHERE
  dispatched_at IS NULL
  AND (CAST(:owner AS text) IS NULL OR owner = CAST(:owner AS text))
  AND (CAST(:type AS text) IS NULL OR type = CAST(:type AS text))
ORDER BY notification_id DESC
LIMIT :page_limit
