-- Marks an owner's :notification_ids as read if all of them exist. A message that was read keeps its time.
-- Locks them by id.
WITH
found AS MATERIALIZED (
  SELECT
    notification_id,
    read_at IS NULL AS was_unread
  FROM buffer.inbox_message
  WHERE owner = :owner AND notification_id = any(CAST(:notification_ids AS bigint[]))
  ORDER BY notification_id
  FOR NO KEY UPDATE
),
marked AS (
  UPDATE buffer.inbox_message
  SET read_at = CAST(:now AS timestamptz)
  FROM found
  WHERE
    found.was_unread
    AND inbox_message.notification_id = found.notification_id
    AND (SELECT count(*) FROM found) = pg_catalog.cardinality(CAST(:notification_ids AS bigint[]))
)
SELECT
  notification_id,
  was_unread
FROM found
