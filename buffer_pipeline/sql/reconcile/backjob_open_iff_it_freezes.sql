-- A backjob is OPEN if and only if one of its freezes is open.
SELECT
  backjob.backjob_id,
  backjob.job,
  backjob.state,
  count(hold_freeze.freeze_id) AS open_freezes
FROM buffer.backjob
LEFT JOIN buffer.hold_freeze
  ON backjob.backjob_id = hold_freeze.backjob_id AND hold_freeze.closed_at IS NULL
GROUP BY backjob.backjob_id
HAVING (backjob.state = 'OPEN') <> (count(hold_freeze.freeze_id) > 0)
ORDER BY backjob.backjob_id
