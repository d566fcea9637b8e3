-- Adds an assignment of a rule to an owner, after lock_owner.sql; without :rule the owner has none from now on.
-- One row. No row if the number exists, which only a snapshot from before it does not show: that is a
-- serialization failure.
INSERT INTO buffer.rule_assignment (owner, number, name, assigned_by, reason, assigned_at)
SELECT
  CAST(:owner AS text),
  coalesce(max(existing.number), 0) + 1,
  CAST(:rule AS text),
  CAST(:by AS text),
  CAST(:reason AS text),
  CAST(:now AS timestamptz)
FROM buffer.rule_assignment AS existing
WHERE existing.owner = CAST(:owner AS text)
ON CONFLICT (owner, number) DO NOTHING
RETURNING owner, name, assigned_by, reason, assigned_at
