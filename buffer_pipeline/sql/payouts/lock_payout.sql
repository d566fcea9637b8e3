-- Locks a payout, and returns what it is now. At most one row.
SELECT
  payout.payout_id,
  payout.wallet_id,
  payout.currency,
  payout.amount_minor,
  payout.state,
  payout.payout_batch_id,
  payout.cancelled_by,
  payout.cancellation_reason,
  wallet.owner
FROM buffer.payout
INNER JOIN buffer.wallet ON payout.wallet_id = wallet.wallet_id
WHERE payout.payout_id = CAST(:payout_id AS bigint)
FOR NO KEY UPDATE OF payout
