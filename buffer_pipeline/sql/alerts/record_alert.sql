-- Records that operators got this alert in :period, and which holds, batches of payouts or payouts it named.
INSERT INTO buffer.alert (kind, period, hold_ids, payout_batch_ids, payout_ids, sent_at)
VALUES (
  :kind,
  CAST(:period AS timestamptz),
  CAST(:hold_ids AS bigint []),
  CAST(:payout_batch_ids AS bigint []),
  CAST(:payout_ids AS bigint []),
  CAST(:now AS timestamptz)
)
RETURNING alert_id
