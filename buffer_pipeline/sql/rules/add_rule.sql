-- Adds a version of a rule, after lock_rule.sql and lock_newest.sql. One row.
-- No row if the version exists, which only a snapshot from before it does not show: that is a serialization failure.
INSERT INTO buffer.hold_rule (
  name, version, currency, days, min_days, cooldown_hours, max_backjobs, fee_percent, fee_fixed_minor, fee_owner,
  fee_on_refund, tax_percent, tax_of, tax_owner, reserve_percent, reserve_days, recovery_percent,
  added_by, reason, added_at
)
VALUES (
  CAST(:rule AS text), CAST(:version AS bigint), CAST(:currency AS text), CAST(:days AS bigint),
  CAST(:min_days AS bigint), CAST(:cooldown_hours AS bigint), CAST(:max_backjobs AS bigint),
  CAST(:fee_percent AS numeric), CAST(:fee_fixed_minor AS bigint), CAST(:fee_owner AS text),
  CAST(:fee_on_refund AS text), CAST(:tax_percent AS numeric), CAST(:tax_of AS text), CAST(:tax_owner AS text),
  CAST(:reserve_percent AS numeric), CAST(:reserve_days AS bigint), CAST(:recovery_percent AS numeric),
  CAST(:added_by AS text), CAST(:reason AS text),
  CAST(:now AS timestamptz)
)
ON CONFLICT (name, version) DO NOTHING
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
