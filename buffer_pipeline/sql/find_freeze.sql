-- A freeze by its id.
SELECT
  freeze_id,
  hold_id,
  kind,
  backjob_id,
  closed_at
FROM buffer.hold_freeze
WHERE freeze_id = CAST(:freeze_id AS bigint)
