-- The open freezes of holds.
SELECT
  freeze_id,
  hold_id,
  kind,
  backjob_id,
  opened_at
FROM buffer.hold_freeze
WHERE hold_id = any(CAST(:hold_ids AS bigint[])) AND closed_at IS NULL
ORDER BY freeze_id
