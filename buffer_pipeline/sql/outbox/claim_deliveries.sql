-- Locks at most :batch_limit waiting notifications, the oldest first.
-- Passes over those that another transaction has locked.
SELECT
  notification.notification_id,
  notification.type,
  notification.owner,
  -- A backjob's payer is the payer of what it froze: whoever asked for it may be somebody else.
  CASE
    WHEN notification.hold_id IS NOT NULL THEN notification.owner = payer.owner
    ELSE EXISTS (
      SELECT FROM buffer.hold_freeze
      INNER JOIN buffer.hold AS frozen ON hold_freeze.hold_id = frozen.hold_id
      INNER JOIN buffer.wallet AS its_payer ON frozen.payer_wallet_id = its_payer.wallet_id
      WHERE hold_freeze.backjob_id = notification.backjob_id AND its_payer.owner = notification.owner
    )
  END AS to_payer,
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
LEFT JOIN buffer.wallet AS payer ON hold.payer_wallet_id = payer.wallet_id
LEFT JOIN buffer.backjob ON notification.backjob_id = backjob.backjob_id
WHERE notification.delivered_at IS NULL AND notification.notification_id > CAST(:after_id AS bigint)
ORDER BY notification.notification_id
LIMIT CAST(:batch_limit AS bigint)
FOR NO KEY UPDATE OF notification SKIP LOCKED
