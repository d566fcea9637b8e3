-- Locks, by id, the holds that a backjob freezes, and returns what each still holds and whose wallets it concerns.
-- The ids come as one array, so that each is looked up, however few holds the planner believes to wait.
SELECT
  unsettled_hold.hold_id,
  unsettled_hold.currency,
  unsettled_hold.amount_minor,
  hold.payee_wallet_id,
  hold.payer_wallet_id
FROM buffer.unsettled_hold
INNER JOIN buffer.hold ON unsettled_hold.hold_id = hold.hold_id
WHERE unsettled_hold.hold_id = any(ARRAY(
  SELECT hold_freeze.hold_id
  FROM buffer.hold_freeze
  WHERE hold_freeze.backjob_id = CAST(:backjob_id AS bigint) AND hold_freeze.closed_at IS NULL
))
ORDER BY unsettled_hold.hold_id
FOR NO KEY UPDATE OF unsettled_hold
