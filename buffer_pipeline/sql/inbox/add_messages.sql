-- Adds messages, given as parallel arrays, and returns those that were not there yet.
INSERT INTO buffer.inbox_message (
  notification_id, owner, type, title, body, hold_id, backjob_id, payout_id, created_at
)
SELECT
  notification_id,
  owner,
  type,
  title,
  body,
  hold_id,
  backjob_id,
  payout_id,
  created_at
FROM
  unnest(
    CAST(:notification_ids AS bigint[]),
    CAST(:owners AS text[]),
    CAST(:types AS text[]),
    CAST(:titles AS text[]),
    CAST(:bodies AS text[]),
    CAST(:hold_ids AS bigint[]),
    CAST(:backjob_ids AS bigint[]),
    CAST(:payout_ids AS bigint[]),
    CAST(:created_at AS timestamptz[])
  ) AS given (notification_id, owner, type, title, body, hold_id, backjob_id, payout_id, created_at)
ORDER BY notification_id
ON CONFLICT (notification_id) DO NOTHING
RETURNING notification_id
