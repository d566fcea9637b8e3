-- Locks, in the order of their ids, the holds that a backjob freezes. Returns what each still holds, and its
-- wallets, its kind and its rule.
-- The ids are one array, so that each hold is looked up by the index, even if the planner expects few waiting
-- holds.
SELECT
  unsettled_hold.hold_id,
  unsettled_hold.currency,
  unsettled_hold.amount_minor,
  unsettled_hold.kind,
  hold.rule_id,
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
