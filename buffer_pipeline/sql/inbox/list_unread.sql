-- A page of an owner's unread messages before :before, the newest first.
SELECT
  notification_id,
  owner,
  type,
  title,
  body,
  hold_id,
  backjob_id,
  payout_id,
  created_at,
  read_at
FROM buffer.inbox_message
WHERE owner = :owner AND notification_id < CAST(:before AS bigint) AND read_at IS NULL
ORDER BY notification_id DESC
LIMIT CAST(:row_limit AS bigint)
