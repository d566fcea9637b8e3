-- An owner's freeze: by its id, by the reference of its opening, or by the reference of its closing. A NULL
-- argument matches nothing.
SELECT
  owner_freeze_id,
  owner,
  kind,
  reference,
  opened_by,
  reason,
  payee_text,
  opened_at,
  holds_frozen,
  closing_reference,
  closed_by,
  closing_reason,
  closed_at,
  holds_resumed
FROM buffer.owner_freeze
WHERE
  owner_freeze_id = CAST(:owner_freeze_id AS bigint)
  OR reference = CAST(:reference AS text)
  OR closing_reference = CAST(:closing_reference AS text)
