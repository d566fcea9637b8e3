-- Open freezes on the backjob's holds that are not the backjob's own.
SELECT
  other.freeze_id,
  other.hold_id,
  other.kind
FROM buffer.hold_freeze
INNER JOIN buffer.hold_freeze AS other ON hold_freeze.hold_id = other.hold_id
WHERE
  hold_freeze.backjob_id = CAST(:backjob_id AS bigint)
  AND hold_freeze.closed_at IS NULL
  AND other.closed_at IS NULL
  AND other.backjob_id IS DISTINCT FROM hold_freeze.backjob_id
ORDER BY other.freeze_id
