"""Hold rules: named terms with versions, which of them an owner has, and which one a hold has."""

from alembic import op

from buffer_pipeline.migrations.hold_status import extend_hold_status, shorten_hold_status

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_RULES = """
CREATE TABLE buffer.hold_rule (
  rule_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL CONSTRAINT hold_rule_name_length CHECK (length(name) BETWEEN 1 AND 200),
  version bigint NOT NULL CONSTRAINT hold_rule_version_is_positive CHECK (version > 0),
  currency text CONSTRAINT hold_rule_currency_fkey REFERENCES buffer.currency (currency),
  days bigint,
  min_days bigint,
  cooldown_hours bigint,
  max_backjobs bigint,
  fee_percent numeric,
  fee_fixed_minor bigint,
  fee_owner text,
  fee_on_refund text,
  tax_percent numeric,
  tax_of text,
  tax_owner text,
  reserve_percent numeric,
  reserve_days bigint,
  added_by text NOT NULL,
  reason text NOT NULL,
  added_at timestamptz NOT NULL,
  retired_by text,
  retirement_reason text,
  retired_at timestamptz,
  CONSTRAINT hold_rule_version_key UNIQUE (name, version),
  CONSTRAINT hold_rule_numbers_in_range CHECK (
    days BETWEEN 0 AND 3650 AND min_days BETWEEN 0 AND 3650 AND reserve_days BETWEEN 0 AND 3650
    AND cooldown_hours BETWEEN 0 AND 43800 AND max_backjobs BETWEEN 0 AND 1000
  ),
  CONSTRAINT hold_rule_min_days_not_above_days CHECK (min_days <= days),
  CONSTRAINT hold_rule_percents_in_range CHECK (
    fee_percent > 0 AND fee_percent < 100 AND tax_percent > 0 AND tax_percent < 100
    AND reserve_percent > 0 AND reserve_percent < 100
  ),
  CONSTRAINT hold_rule_percents_have_four_places CHECK (
    fee_percent = round(fee_percent, 4) AND tax_percent = round(tax_percent, 4)
    AND reserve_percent = round(reserve_percent, 4)
  ),
  CONSTRAINT hold_rule_fixed_fee_in_range CHECK (fee_fixed_minor BETWEEN 1 AND 1000000000000000),
  CONSTRAINT hold_rule_fee_is_whole CHECK (
    (fee_owner IS NOT NULL) = (fee_percent IS NOT NULL OR fee_fixed_minor IS NOT NULL)
    AND (fee_owner IS NOT NULL) = (fee_on_refund IS NOT NULL)
  ),
  CONSTRAINT hold_rule_fixed_fee_has_currency CHECK (fee_fixed_minor IS NULL OR currency IS NOT NULL),
  CONSTRAINT hold_rule_fee_on_refund_is_known CHECK (fee_on_refund IN ('return', 'keep')),
  CONSTRAINT hold_rule_tax_is_whole CHECK (num_nonnulls(tax_percent, tax_of, tax_owner) IN (0, 3)),
  CONSTRAINT hold_rule_tax_of_is_known CHECK (tax_of IN ('gross', 'net')),
  CONSTRAINT hold_rule_leaves_something CHECK (tax_of <> 'gross' OR fee_percent + tax_percent < 100),
  CONSTRAINT hold_rule_reserve_is_whole CHECK ((reserve_percent IS NULL) = (reserve_days IS NULL)),
  CONSTRAINT hold_rule_owner_length CHECK (
    length(fee_owner) BETWEEN 1 AND 200 AND length(tax_owner) BETWEEN 1 AND 200
  ),
  CONSTRAINT hold_rule_says_who_and_why CHECK (
    added_by <> '' AND reason <> '' AND retired_by <> '' AND retirement_reason <> ''
  ),
  CONSTRAINT hold_rule_retired_by_only_of_retired CHECK (
    retired_at IS NOT NULL OR num_nonnulls(retired_by, retirement_reason) = 0
  ),
  CONSTRAINT hold_rule_retired_after_it_was_added CHECK (added_at <= retired_at)
);
-- An update that changes nothing passes: the verbs write a rule's newest version to lock it.
CREATE TRIGGER hold_rule_is_retired_once BEFORE UPDATE ON buffer.hold_rule
FOR EACH ROW WHEN (
  old.* IS DISTINCT FROM new.* AND (
    old.retired_at IS NOT NULL
    OR to_jsonb(old.*) - ARRAY['retired_by', 'retirement_reason', 'retired_at']
    <> to_jsonb(new.*) - ARRAY['retired_by', 'retirement_reason', 'retired_at']
  )
) EXECUTE FUNCTION buffer.refuse_rewriting();
CREATE TRIGGER hold_rule_is_kept BEFORE DELETE OR TRUNCATE ON buffer.hold_rule
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
REVOKE ALL ON buffer.hold_rule FROM PUBLIC;
REVOKE UPDATE, DELETE, TRUNCATE ON buffer.hold_rule FROM CURRENT_USER;
GRANT UPDATE (retired_by, retirement_reason, retired_at) ON buffer.hold_rule TO CURRENT_USER, buffer_platform;
GRANT INSERT (
  name, version, currency, days, min_days, cooldown_hours, max_backjobs, fee_percent, fee_fixed_minor, fee_owner,
  fee_on_refund, tax_percent, tax_of, tax_owner, reserve_percent, reserve_days, added_by, reason, added_at
) ON buffer.hold_rule TO buffer_platform;
GRANT SELECT ON buffer.hold_rule TO buffer_platform, buffer_releaser, buffer_reader;

CREATE TABLE buffer.rule_assignment (
  owner text NOT NULL CONSTRAINT rule_assignment_owner_length CHECK (length(owner) BETWEEN 1 AND 200),
  number bigint NOT NULL CONSTRAINT rule_assignment_number_is_positive CHECK (number > 0),
  name text,
  first_version bigint NOT NULL GENERATED ALWAYS AS (1) STORED,
  assigned_by text,
  reason text,
  assigned_at timestamptz NOT NULL,
  PRIMARY KEY (owner, number),
  CONSTRAINT rule_assignment_rule_fkey FOREIGN KEY (name, first_version) REFERENCES buffer.hold_rule (name, version),
  CONSTRAINT rule_assignment_says_who_and_why CHECK (assigned_by <> '' AND reason <> '')
);
CREATE INDEX rule_assignment_name_idx ON buffer.rule_assignment (name);
CREATE TRIGGER rule_assignment_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON buffer.rule_assignment
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
REVOKE ALL ON buffer.rule_assignment FROM PUBLIC;
REVOKE UPDATE, DELETE, TRUNCATE ON buffer.rule_assignment FROM CURRENT_USER;
GRANT INSERT (owner, number, name, assigned_by, reason, assigned_at) ON buffer.rule_assignment TO buffer_platform;
GRANT SELECT ON buffer.rule_assignment TO buffer_platform, buffer_releaser, buffer_reader;
"""

# Of a hold without one the settings' defaults are the rule. The column is empty, so nothing is read to add it.
_RULE_OF_A_HOLD = """
ALTER TABLE buffer.hold ADD rule_id bigint CONSTRAINT hold_rule_fkey REFERENCES buffer.hold_rule (rule_id);
GRANT INSERT (rule_id) ON buffer.hold TO buffer_platform;
"""


def upgrade() -> None:
    op.execute(_RULES)
    op.execute(_RULE_OF_A_HOLD)
    extend_hold_status("metadata", "rule_id")


def downgrade() -> None:
    # The rules are lost: an older version would not know them.
    shorten_hold_status("metadata")
    # A privilege on a column outlives the column.
    op.execute("REVOKE INSERT (rule_id) ON buffer.hold FROM buffer_platform")
    op.execute("ALTER TABLE buffer.hold DROP COLUMN rule_id")
    op.execute("DROP TABLE buffer.rule_assignment")
    op.execute("DROP TABLE buffer.hold_rule")
