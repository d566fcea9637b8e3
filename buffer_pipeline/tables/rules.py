"""Hold rules and their assignments to owners."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from buffer_pipeline.tables.schema import SCHEMA, metadata, time_column
from buffer_pipeline.tables.wallets import currency

# A version of a rule. Its terms never change; it can be retired once.
hold_rule = Table(
    "hold_rule",
    metadata,
    Column("rule_id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("currency", Text, ForeignKey(currency.c.currency, name="hold_rule_currency_fkey"), nullable=True),
    Column("days", BigInteger, nullable=True),
    Column("min_days", BigInteger, nullable=True),
    Column("cooldown_hours", BigInteger, nullable=True),
    Column("max_backjobs", BigInteger, nullable=True),
    Column("fee_percent", Numeric, nullable=True),
    Column("fee_fixed_minor", BigInteger, nullable=True),
    Column("fee_owner", Text, nullable=True),
    Column("fee_on_refund", Text, nullable=True),
    Column("tax_percent", Numeric, nullable=True),
    Column("tax_of", Text, nullable=True),
    Column("tax_owner", Text, nullable=True),
    Column("reserve_percent", Numeric, nullable=True),
    Column("reserve_days", BigInteger, nullable=True),
    Column("added_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    time_column("added_at"),
    Column("retired_by", Text, nullable=True),
    Column("retirement_reason", Text, nullable=True),
    time_column("retired_at", nullable=True),
    # How much of what is released may pay the payee's debts. NULL is 100.
    Column("recovery_percent", Numeric, nullable=True),
    UniqueConstraint("name", "version", name="hold_rule_version_key"),
    CheckConstraint("length(name) BETWEEN 1 AND 200", name="hold_rule_name_length"),
    CheckConstraint("version > 0", name="hold_rule_version_is_positive"),
    CheckConstraint(
        "days BETWEEN 0 AND 3650 AND min_days BETWEEN 0 AND 3650 AND reserve_days BETWEEN 0 AND 3650"
        " AND cooldown_hours BETWEEN 0 AND 43800 AND max_backjobs BETWEEN 0 AND 1000",
        name="hold_rule_numbers_in_range",
    ),
    CheckConstraint("min_days <= days", name="hold_rule_min_days_not_above_days"),
    CheckConstraint(
        "fee_percent > 0 AND fee_percent < 100 AND tax_percent > 0 AND tax_percent < 100"
        " AND reserve_percent > 0 AND reserve_percent < 100",
        name="hold_rule_percents_in_range",
    ),
    CheckConstraint(
        "fee_percent = round(fee_percent, 4) AND tax_percent = round(tax_percent, 4)"
        " AND reserve_percent = round(reserve_percent, 4)",
        name="hold_rule_percents_have_four_places",
    ),
    CheckConstraint("fee_fixed_minor BETWEEN 1 AND 1000000000000000", name="hold_rule_fixed_fee_in_range"),
    CheckConstraint(
        "(fee_owner IS NOT NULL) = (fee_percent IS NOT NULL OR fee_fixed_minor IS NOT NULL)"
        " AND (fee_owner IS NOT NULL) = (fee_on_refund IS NOT NULL)",
        name="hold_rule_fee_is_whole",
    ),
    CheckConstraint(
        "fee_fixed_minor IS NULL OR currency IS NOT NULL", name="hold_rule_fixed_fee_has_currency"
    ),
    CheckConstraint("fee_on_refund IN ('return', 'keep')", name="hold_rule_fee_on_refund_is_known"),
    CheckConstraint("num_nonnulls(tax_percent, tax_of, tax_owner) IN (0, 3)", name="hold_rule_tax_is_whole"),
    CheckConstraint("tax_of IN ('gross', 'net')", name="hold_rule_tax_of_is_known"),
    CheckConstraint(
        "tax_of <> 'gross' OR fee_percent + tax_percent < 100", name="hold_rule_leaves_something"
    ),
    CheckConstraint("(reserve_percent IS NULL) = (reserve_days IS NULL)", name="hold_rule_reserve_is_whole"),
    CheckConstraint(
        "length(fee_owner) BETWEEN 1 AND 200 AND length(tax_owner) BETWEEN 1 AND 200",
        name="hold_rule_owner_length",
    ),
    CheckConstraint(
        "added_by <> '' AND reason <> '' AND retired_by <> '' AND retirement_reason <> ''",
        name="hold_rule_says_who_and_why",
    ),
    CheckConstraint(
        "retired_at IS NOT NULL OR num_nonnulls(retired_by, retirement_reason) = 0",
        name="hold_rule_retired_by_only_of_retired",
    ),
    CheckConstraint(
        "recovery_percent BETWEEN 0 AND 100 AND recovery_percent = round(recovery_percent, 4)",
        name="hold_rule_recovery_percent_in_range",
    ),
    CheckConstraint("added_at <= retired_at", name="hold_rule_retired_after_it_was_added"),
)

# Which rule an owner has: the row with the largest number counts, and no name in it means none.
rule_assignment = Table(
    "rule_assignment",
    metadata,
    Column("owner", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("name", Text, nullable=True),
    # For the foreign key: a rule that exists has a first version.
    Column("first_version", BigInteger, Computed("1", persisted=True), nullable=False),
    Column("assigned_by", Text, nullable=True),
    Column("reason", Text, nullable=True),
    time_column("assigned_at"),
    PrimaryKeyConstraint("owner", "number"),
    ForeignKeyConstraint(
        ["name", "first_version"],
        [f"{SCHEMA}.hold_rule.name", f"{SCHEMA}.hold_rule.version"],
        name="rule_assignment_rule_fkey",
    ),
    CheckConstraint("length(owner) BETWEEN 1 AND 200", name="rule_assignment_owner_length"),
    CheckConstraint("number > 0", name="rule_assignment_number_is_positive"),
    CheckConstraint("assigned_by <> '' AND reason <> ''", name="rule_assignment_says_who_and_why"),
)
# To count the owners of a rule.
Index("rule_assignment_name_idx", rule_assignment.c.name)
# For the audit trail, which lists the newest first, of all or of one person.
Index("rule_assignment_at_idx", rule_assignment.c.assigned_at)
Index("rule_assignment_by_idx", rule_assignment.c.assigned_by, rule_assignment.c.assigned_at)
