-- The payout schedule of an owner that counts: the newest one. At most one row. Reads only.
SELECT
  owner,
  schedule,
  set_by,
  reason,
  set_at
FROM buffer.payout_schedule
WHERE owner = CAST(:owner AS text)
ORDER BY number DESC
LIMIT 1
