-- A backjob by its id, by the reference of its request, or by the reference of its decision. A NULL argument
-- matches nothing.
SELECT
  backjob_id,
  reference,
  job,
  state,
  requested_by,
  reason,
  decision_reference,
  decided_by,
  decision_reason,
  decided_at,
  (
    SELECT max(hold_freeze.opened_at) FROM buffer.hold_freeze
    WHERE hold_freeze.backjob_id = backjob.backjob_id
  ) AS frozen_at
FROM buffer.backjob
WHERE
  backjob_id = CAST(:backjob_id AS bigint)
  OR reference = CAST(:reference AS text)
  OR decision_reference = CAST(:decision_reference AS text)
