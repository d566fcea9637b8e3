-- When the owner's freeze last froze a hold that it still covers; NULL if it covers none.
SELECT max(opened_at) AS frozen_at
FROM buffer.hold_freeze
WHERE owner_freeze_id = CAST(:owner_freeze_id AS bigint) AND closed_at IS NULL
