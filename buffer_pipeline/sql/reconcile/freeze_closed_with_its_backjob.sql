-- A backjob's freezes are of holds of its job, and are closed by its decision: by the same person, for the same
-- reason, at the same moment.
SELECT
  hold_freeze.freeze_id,
  hold_freeze.hold_id,
  hold_freeze.backjob_id,
  hold.job,
  backjob.job AS backjob_job,
  backjob.state,
  hold_freeze.closed_by,
  backjob.decided_by,
  hold_freeze.closed_at,
  backjob.decided_at
FROM buffer.hold_freeze
LEFT JOIN buffer.hold ON hold_freeze.hold_id = hold.hold_id
LEFT JOIN buffer.backjob ON hold_freeze.backjob_id = backjob.backjob_id
WHERE
  hold_freeze.backjob_id IS NOT NULL
  AND (
    hold.job IS DISTINCT FROM backjob.job
    OR hold_freeze.closed_at IS DISTINCT FROM backjob.decided_at
    OR hold_freeze.closed_by IS DISTINCT FROM backjob.decided_by
    OR hold_freeze.closing_reason IS DISTINCT FROM backjob.decision_reason
  )
ORDER BY hold_freeze.freeze_id
