-- The assignment of an owner that counts: the newest one. At most one row. Reads only.
SELECT
  owner,
  name,
  assigned_by,
  reason,
  assigned_at
FROM buffer.rule_assignment
WHERE owner = CAST(:owner AS text)
ORDER BY number DESC
LIMIT 1
