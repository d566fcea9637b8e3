-- Locks, by id, the holds that a backjob freezes, and says what each still holds.
SELECT
  hold.hold_id,
  hold.currency,
  hold.amount_minor - hold.refunded_minor AS amount_minor
FROM buffer.hold
INNER JOIN buffer.hold_freeze ON hold.hold_id = hold_freeze.hold_id
WHERE hold_freeze.backjob_id = CAST(:backjob_id AS bigint) AND hold_freeze.closed_at IS NULL
ORDER BY hold.hold_id
FOR NO KEY UPDATE OF hold
