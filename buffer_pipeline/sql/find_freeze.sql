-- A freeze by its id, by the reference of its opening or by that of its closing; a null argument matches nothing.
SELECT
  freeze_id,
  hold_id,
  kind,
  backjob_id,
  reference,
  opened_by,
  opened_at,
  reason,
  closing_reference,
  closed_by,
  closing_reason,
  closed_at
FROM buffer.hold_freeze
WHERE
  freeze_id = CAST(:freeze_id AS bigint)
  OR reference = CAST(:reference AS text)
  OR closing_reference = CAST(:closing_reference AS text)
