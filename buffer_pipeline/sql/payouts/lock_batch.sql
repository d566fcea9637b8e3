-- Locks a batch of payouts, and returns what it is now. At most one row.
SELECT
  payout_batch_id,
  currency,
  method,
  state,
  payouts,
  amount_minor,
  four_eyes,
  made_by,
  approved_by,
  sent_by,
  cancelled_by,
  cancellation_reason
FROM buffer.payout_batch
WHERE payout_batch_id = CAST(:payout_batch_id AS bigint)
FOR NO KEY UPDATE
