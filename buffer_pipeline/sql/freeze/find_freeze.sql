-- A freeze by its id, by the reference of its opening, or by the reference of its closing. A NULL argument
-- matches nothing.
-- `first_id` is the first freeze of an earning's, otherwise the freeze itself. `freeze_ids` are all of them, and
-- `hold_ids` the holds that they cover; `named_hold_id` is the hold by whose id they were opened.
WITH
found AS MATERIALIZED (
  SELECT
    *,
    coalesce(earning_freeze_id, freeze_id) AS first_id
  FROM buffer.hold_freeze
  WHERE
    freeze_id = CAST(:freeze_id AS bigint)
    OR reference = CAST(:reference AS text)
    OR closing_reference = CAST(:closing_reference AS text)
)

SELECT
  found.freeze_id,
  found.hold_id,
  found.first_id,
  coalesce(found.earning_id, found.hold_id) AS named_hold_id,
  ARRAY(
    SELECT found.first_id
    UNION ALL
    SELECT share.freeze_id FROM buffer.hold_freeze AS share
    WHERE share.earning_freeze_id = found.first_id
    ORDER BY 1
  ) AS freeze_ids,
  ARRAY(
    SELECT first.hold_id FROM buffer.hold_freeze AS first
    WHERE first.freeze_id = found.first_id
    UNION ALL
    SELECT share.hold_id FROM buffer.hold_freeze AS share
    WHERE share.earning_freeze_id = found.first_id
    ORDER BY 1
  ) AS hold_ids,
  found.kind,
  found.backjob_id,
  found.owner_freeze_id,
  (
    SELECT owner_freeze.owner FROM buffer.owner_freeze
    WHERE owner_freeze.owner_freeze_id = found.owner_freeze_id
  ) AS owner,
  found.reference,
  found.opened_by,
  found.opened_at,
  found.reason,
  found.payee_text,
  found.closing_reference,
  found.closed_by,
  found.closing_reason,
  found.closed_at
FROM found
