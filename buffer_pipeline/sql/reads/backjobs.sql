-- Of the backjobs :ids those that match, each with the holds that it froze. Reads only; at most as many rows
-- as ids.
SELECT
  backjob.backjob_id,
  backjob.job,
  backjob.state,
  backjob.reference,
  backjob.requested_by,
  backjob.reason,
  backjob.requested_at,
  backjob.decided_by,
  backjob.decision_reason,
  backjob.decided_at,
  ARRAY(
    SELECT hold_freeze.hold_id FROM buffer.hold_freeze
    WHERE hold_freeze.backjob_id = backjob.backjob_id
    ORDER BY hold_freeze.hold_id
  ) AS hold_ids
FROM buffer.backjob
WHERE
  backjob.backjob_id = any(CAST(:ids AS bigint[]))
  AND (CAST(:state AS text) IS NULL OR backjob.state = CAST(:state AS text))
  AND (CAST(:job AS text) IS NULL OR backjob.job = CAST(:job AS text))
