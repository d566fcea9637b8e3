-- Open freezes on the backjob's holds that are not the backjob's own.
-- The ids come as one array, so that each is looked up, however few freezes the planner believes to be open.
SELECT
  freeze_id,
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
ORDER BY freeze_id
