-- Adds the next version of an owner's destination, after lock_owner.sql. One row. No row if the version exists,
-- which only a snapshot from before it does not show: that is a serialization failure.
INSERT INTO buffer.payout_destination (owner, version, method, account, masked, holder_name, set_by, reason, set_at)
SELECT
  CAST(:owner AS text),
  coalesce(max(existing.version), 0) + 1,
  :method,
  :account,
  :masked,
  CAST(:holder_name AS text),
  :set_by,
  :reason,
  CAST(:now AS timestamptz)
FROM buffer.payout_destination AS existing
WHERE existing.owner = CAST(:owner AS text)
ON CONFLICT (owner, version) DO NOTHING
RETURNING destination_id, owner, version, method, masked, holder_name, set_by, reason, set_at
