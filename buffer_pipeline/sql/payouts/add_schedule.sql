-- Adds a payout schedule of an owner, after lock_owner.sql: from now on it counts. One row. No row if the number
-- exists, which only a snapshot from before it does not show: that is a serialization failure.
INSERT INTO buffer.payout_schedule (owner, number, schedule, set_by, reason, set_at)
SELECT
  CAST(:owner AS text),
  coalesce(max(existing.number), 0) + 1,
  :schedule,
  :set_by,
  :reason,
  CAST(:now AS timestamptz)
FROM buffer.payout_schedule AS existing
WHERE existing.owner = CAST(:owner AS text)
ON CONFLICT (owner, number) DO NOTHING
RETURNING owner, schedule, set_by, reason, set_at
