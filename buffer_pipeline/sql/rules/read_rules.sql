-- The versions of rules with these ids, in the order of their ids. Reads only.
SELECT
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
FROM buffer.hold_rule
WHERE rule_id = any(CAST(:rule_ids AS bigint[]))
ORDER BY rule_id
