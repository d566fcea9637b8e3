-- The destination of an owner that counts: the newest one, without its account. At most one row. Reads only.
SELECT
  destination_id,
  owner,
  version,
  method,
  masked,
  holder_name,
  set_by,
  reason,
  set_at
FROM buffer.payout_destination
WHERE owner = CAST(:owner AS text)
ORDER BY version DESC
LIMIT 1
