-- Locks the holds of :hold_ids, or the job's holds, by id, and says how they stand.
-- A null argument matches nothing.
SELECT
  hold.hold_id,
  hold.job,
  hold.state,
  hold.currency,
  hold.amount_minor - hold.refunded_minor AS amount_minor,
  hold.release_date,
  payer.owner AS payer
FROM buffer.hold
INNER JOIN buffer.wallet AS payer ON hold.payer_wallet_id = payer.wallet_id
WHERE hold.hold_id = any(CAST(:hold_ids AS bigint[])) OR hold.job = CAST(:job AS text)
ORDER BY hold.hold_id
FOR NO KEY UPDATE OF hold
