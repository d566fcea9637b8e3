-- The newest version of every rule for each of its currencies, by name; or, of the rule :rule, every version, the
-- newest first. A retired version stands for all versions of its rule before it, and is left out if a later one
-- exists. Reads only.
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
WHERE
  (CAST(:rule AS text) IS NOT NULL AND name = CAST(:rule AS text))
  OR (
    CAST(:rule AS text) IS NULL AND NOT EXISTS (
      SELECT FROM buffer.hold_rule AS later
      WHERE
        later.name = hold_rule.name
        AND later.version > hold_rule.version
        AND (
          later.currency IS NOT DISTINCT FROM hold_rule.currency
          OR later.retired_at IS NOT NULL
          OR hold_rule.retired_at IS NOT NULL
        )
    )
  )
ORDER BY name ASC, version DESC
