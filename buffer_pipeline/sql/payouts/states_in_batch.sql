-- The payouts of a batch that are among :payout_ids, or every one of them: each with its state, its wallet, its amount
-- and whether it was paid. The caller has locked the batch, which is SENT: nobody else changes its payouts.
SELECT
  payout.payout_id,
  payout.state,
  payout.wallet_id,
  payout.amount_minor,
  payout.paid_at IS NOT NULL AS was_paid
FROM unnest(CAST(:payout_ids AS bigint[])) AS named (payout_id)
INNER JOIN buffer.payout ON named.payout_id = payout.payout_id
WHERE payout.payout_batch_id = CAST(:payout_batch_id AS bigint) AND NOT CAST(:every_payout AS boolean)
UNION ALL
SELECT
  payout.payout_id,
  payout.state,
  payout.wallet_id,
  payout.amount_minor,
  payout.paid_at IS NOT NULL
FROM buffer.payout
WHERE payout.payout_batch_id = CAST(:payout_batch_id AS bigint) AND CAST(:every_payout AS boolean)
ORDER BY payout_id
