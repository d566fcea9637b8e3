-- Retires a version of a rule, after lock_newest.sql. One row; none if it is retired already.
UPDATE buffer.hold_rule
SET
  retired_by = CAST(:by AS text),
  retirement_reason = CAST(:reason AS text),
  retired_at = CAST(:now AS timestamptz)
WHERE hold_rule.rule_id = CAST(:rule_id AS bigint) AND hold_rule.retired_at IS NULL
RETURNING
  rule_id,
  name,
  version,
  currency,
  days,
  min_days,
  cooldown_hours,
  max_backjobs,
  fee_percent,
  fee_fixed_minor,
  fee_owner,
  fee_on_refund,
  tax_percent,
  tax_of,
  tax_owner,
  reserve_percent,
  reserve_days,
  recovery_percent,
  added_by,
  reason,
  added_at,
  retired_by,
  retirement_reason,
  retired_at
