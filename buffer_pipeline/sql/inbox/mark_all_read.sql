-- Marks an owner's unread messages up to :up_to as read. Locks them by id.
WITH
unread AS MATERIALIZED (
  SELECT notification_id
  FROM buffer.inbox_message
  WHERE owner = :owner AND read_at IS NULL AND notification_id <= CAST(:up_to AS bigint)
  ORDER BY notification_id
  FOR NO KEY UPDATE
)
UPDATE buffer.inbox_message
SET read_at = CAST(:now AS timestamptz)
WHERE notification_id IN (SELECT notification_id FROM unread)
RETURNING notification_id
