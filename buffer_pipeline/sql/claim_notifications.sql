-- Locks at most :batch_limit waiting notifications, the oldest first.
-- Passes over those that another transaction has locked.
SELECT
  notification.notification_id,
  notification.type,
  notification.owner,
  notification.hold_id,
  notification.backjob_id,
  notification.currency,
  notification.amount_minor,
  notification.release_date,
  notification.created_at,
  coalesce(hold.job, backjob.job) AS job,
  hold.title
FROM buffer.notification
LEFT JOIN buffer.hold ON notification.hold_id = hold.hold_id
LEFT JOIN buffer.backjob ON notification.backjob_id = backjob.backjob_id
WHERE notification.delivered_at IS NULL AND notification.notification_id > CAST(:after_id AS bigint)
ORDER BY notification.notification_id
LIMIT CAST(:batch_limit AS bigint)
FOR NO KEY UPDATE OF notification SKIP LOCKED
