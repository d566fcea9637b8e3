-- The freezes that are open on a hold.
SELECT
  freeze_id,
  kind,
  backjob_id,
  opened_at
FROM buffer.hold_freeze
WHERE hold_id = CAST(:hold_id AS bigint) AND closed_at IS NULL
ORDER BY freeze_id
