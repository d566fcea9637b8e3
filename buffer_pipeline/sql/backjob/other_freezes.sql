-- The open freezes on the backjob's holds that do not belong to the backjob. That of an earning has the id of its
-- first freeze, by which it is closed.
-- The ids are one array, so that each freeze is looked up by the index, even if the planner expects few open
-- freezes.
SELECT
  coalesce(earning_freeze_id, freeze_id) AS freeze_id,
  hold_id,
  kind
FROM buffer.hold_freeze
WHERE
  hold_id = any(ARRAY(
    SELECT covered.hold_id
    FROM buffer.hold_freeze AS covered
    WHERE covered.backjob_id = CAST(:backjob_id AS bigint) AND covered.closed_at IS NULL
  ))
  AND closed_at IS NULL
  AND backjob_id IS DISTINCT FROM CAST(:backjob_id AS bigint)
ORDER BY hold_freeze.freeze_id
