-- A freeze and the state of its hold.
SELECT
  hold_freeze.freeze_id,
  hold_freeze.hold_id,
  hold_freeze.kind,
  hold_freeze.backjob_id,
  hold_freeze.closed_at,
  hold.state
FROM buffer.hold_freeze
INNER JOIN buffer.hold ON hold_freeze.hold_id = hold.hold_id
WHERE hold_freeze.freeze_id = CAST(:freeze_id AS bigint)
