-- Locks, by id, the holds that a backjob freezes, and says what each still holds.
SELECT
  unsettled_hold.hold_id,
  unsettled_hold.currency,
  unsettled_hold.amount_minor
FROM buffer.unsettled_hold
INNER JOIN buffer.hold_freeze ON unsettled_hold.hold_id = hold_freeze.hold_id
WHERE hold_freeze.backjob_id = CAST(:backjob_id AS bigint) AND hold_freeze.closed_at IS NULL
ORDER BY unsettled_hold.hold_id
FOR NO KEY UPDATE OF unsettled_hold
