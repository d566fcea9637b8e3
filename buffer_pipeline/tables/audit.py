"""Who did what and why, of whatever has no row of its own that says so."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from buffer_pipeline.tables.holds import hold
from buffer_pipeline.tables.schema import metadata, time_column

# Freezes, backjobs and batches have who and why in their own rows. sql/report/audit_lines.sql unites all.
audit_line = Table(
    "audit_line",
    metadata,
    Column("audit_id", BigInteger, Identity(always=True), primary_key=True),
    time_column("at"),
    Column("by", Text, nullable=False),
    Column("verb", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("hold_id", BigInteger, ForeignKey(hold.c.hold_id, name="audit_line_hold_fkey"), nullable=True),
    # No foreign key: its check would lock the transaction, which not even the owner may (decision 3). The
    # invariant `audit_line_matches_what_it_names` compares both.
    Column("transaction_id", BigInteger, nullable=True),
    Column("reference", Text, nullable=True),
    Column("reason", Text, nullable=True),
    time_column("from_date", nullable=True),
    time_column("to_date", nullable=True),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'")),
    UniqueConstraint("transaction_id", name="audit_line_transaction_key"),
    UniqueConstraint("reference", name="audit_line_reference_key"),
    CheckConstraint("verb IN ('RESCHEDULE', 'DEPOSIT', 'WITHDRAW')", name="audit_line_verb_is_known"),
    CheckConstraint("(verb = 'RESCHEDULE') = (hold_id IS NOT NULL)", name="audit_line_hold_iff_of_a_hold"),
    CheckConstraint(
        "(verb IN ('DEPOSIT', 'WITHDRAW')) = (transaction_id IS NOT NULL)",
        name="audit_line_transaction_iff_money_moves",
    ),
    CheckConstraint(
        "(verb = 'RESCHEDULE') = (from_date IS NOT NULL) AND (from_date IS NULL) = (to_date IS NULL)"
        " AND from_date <> to_date",
        name="audit_line_dates_iff_rescheduled",
    ),
    CheckConstraint(
        "reason IS NOT NULL OR verb IN ('DEPOSIT', 'WITHDRAW')", name="audit_line_of_a_decision_says_why"
    ),
    CheckConstraint("by <> '' AND owner <> '' AND reason <> ''", name="audit_line_says_who_and_why"),
    CheckConstraint("length(reference) BETWEEN 1 AND 200", name="audit_line_reference_length"),
    CheckConstraint("jsonb_typeof(detail) = 'object'", name="audit_line_detail_is_an_object"),
)
Index("audit_line_at_idx", audit_line.c.at)
Index("audit_line_by_idx", audit_line.c.by, audit_line.c.at)
Index("audit_line_hold_idx", audit_line.c.hold_id, postgresql_where=text("hold_id IS NOT NULL"))
