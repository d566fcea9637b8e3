-- Locks, by id, the holds that a backjob freezes, and says what each still holds.
-- The ids come as one array, so that each is looked up, however few holds the planner believes to wait.
SELECT
  hold_id,
  currency,
  amount_minor
FROM buffer.unsettled_hold
WHERE hold_id = any(ARRAY(
  SELECT hold_freeze.hold_id
  FROM buffer.hold_freeze
  WHERE hold_freeze.backjob_id = CAST(:backjob_id AS bigint) AND hold_freeze.closed_at IS NULL
))
ORDER BY hold_id
FOR NO KEY UPDATE OF unsettled_hold
