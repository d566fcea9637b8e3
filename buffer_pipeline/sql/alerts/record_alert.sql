-- Records that operators got this alert in :period, and which holds or batches of payouts it named.
INSERT INTO buffer.alert (kind, period, hold_ids, payout_batch_ids, sent_at)
VALUES (
  :kind,
  CAST(:period AS timestamptz),
  CAST(:hold_ids AS bigint []),
  CAST(:payout_batch_ids AS bigint []),
  CAST(:now AS timestamptz)
)
RETURNING alert_id
