-- The newest version of a rule, after lock_rule.sql; no row if there is none. At most one row.
-- Writes the row without a change: on a snapshot that another change of the rule has outdated, it ends with a
-- serialization failure.
UPDATE buffer.hold_rule
SET retired_at = hold_rule.retired_at
WHERE hold_rule.rule_id = (
  SELECT newest.rule_id
  FROM buffer.hold_rule AS newest
  WHERE newest.name = CAST(:rule AS text)
  ORDER BY newest.version DESC
  LIMIT 1
)
RETURNING rule_id, name, version, added_at, retired_at
