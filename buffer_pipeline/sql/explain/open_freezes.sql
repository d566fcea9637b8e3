-- The open freezes of a hold, the oldest first: each with what it belongs to, and the freeze that is to be
-- closed for it: of an earning's the first one. Reads only.
SELECT
  coalesce(hold_freeze.earning_freeze_id, hold_freeze.freeze_id) AS freeze_id,
  hold_freeze.kind,
  hold_freeze.opened_by,
  hold_freeze.reason,
  hold_freeze.opened_at,
  coalesce(hold_freeze.payee_text, owner_freeze.payee_text) AS payee_text,
  hold_freeze.backjob_id,
  backjob.requested_by,
  backjob.requested_at,
  hold_freeze.owner_freeze_id,
  owner_freeze.opened_by AS owner_frozen_by,
  owner_freeze.reason AS owner_frozen_because,
  owner_freeze.opened_at AS owner_frozen_at
FROM buffer.hold_freeze
LEFT JOIN buffer.backjob ON hold_freeze.backjob_id = backjob.backjob_id
LEFT JOIN buffer.owner_freeze ON hold_freeze.owner_freeze_id = owner_freeze.owner_freeze_id
WHERE hold_freeze.hold_id = CAST(:hold_id AS bigint) AND hold_freeze.closed_at IS NULL
ORDER BY hold_freeze.freeze_id
