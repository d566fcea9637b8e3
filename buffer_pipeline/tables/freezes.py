"""Backjobs, freezes of holds, and freezes of owners."""

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

from buffer_pipeline.tables.holds import hold
from buffer_pipeline.tables.schema import metadata, time_column

backjob = Table(
    "backjob",
    metadata,
    Column("backjob_id", BigInteger, Identity(always=True), primary_key=True),
    Column("reference", Text, nullable=True),
    Column("job", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'OPEN'")),
    Column("requested_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    time_column("requested_at"),
    Column("decided_by", Text, nullable=True),
    Column("decision_reason", Text, nullable=True),
    time_column("decided_at", nullable=True),
    Column("refunded_minor", BigInteger, nullable=True),
    Column("decision_reference", Text, nullable=True),
    UniqueConstraint("reference", name="backjob_reference_key"),
    UniqueConstraint("decision_reference", name="backjob_decision_reference_key"),
    CheckConstraint(
        "decision_reference IS NULL OR state <> 'OPEN'", name="backjob_decision_reference_only_of_decided"
    ),
    CheckConstraint("length(decision_reference) BETWEEN 1 AND 200", name="backjob_decision_reference_length"),
    CheckConstraint("state IN ('OPEN', 'REJECTED', 'APPROVED', 'WITHDRAWN')", name="backjob_state_is_known"),
    CheckConstraint(
        "(state = 'OPEN') = (decided_at IS NULL)"
        " AND (decided_at IS NULL) = (decided_by IS NULL)"
        " AND (decided_at IS NULL) = (decision_reason IS NULL)",
        name="backjob_decided_iff_not_open",
    ),
    CheckConstraint(
        "(state = 'APPROVED') = (refunded_minor IS NOT NULL)",
        name="backjob_refunds_iff_approved",
    ),
    CheckConstraint("refunded_minor > 0", name="backjob_refund_is_positive"),
    CheckConstraint("requested_at <= decided_at", name="backjob_decided_after_request"),
    CheckConstraint(
        "job <> '' AND requested_by <> '' AND reason <> '' AND decided_by <> '' AND decision_reason <> ''",
        name="backjob_says_who_and_why",
    ),
)
Index("backjob_one_open_per_job", backjob.c.job, unique=True, postgresql_where=text("state = 'OPEN'"))
Index("backjob_job_idx", backjob.c.job)

# All holds that wait for an owner are frozen, and each new one, while a row of the owner is open. See
# docs/decisions/0028-intake-finds-an-owners-freeze-in-the-wallet.md.
owner_freeze = Table(
    "owner_freeze",
    metadata,
    Column("owner_freeze_id", BigInteger, Identity(always=True), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("reference", Text, nullable=True),
    Column("opened_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    time_column("opened_at"),
    Column("holds_frozen", BigInteger, nullable=False),
    Column("closing_reference", Text, nullable=True),
    Column("closed_by", Text, nullable=True),
    Column("closing_reason", Text, nullable=True),
    time_column("closed_at", nullable=True),
    Column("holds_resumed", BigInteger, nullable=True),
    # What the payee is told. The reason is internal.
    Column("payee_text", Text, nullable=True),
    UniqueConstraint("reference", name="owner_freeze_reference_key"),
    UniqueConstraint("closing_reference", name="owner_freeze_closing_reference_key"),
    CheckConstraint("length(owner) BETWEEN 1 AND 200", name="owner_freeze_owner_length"),
    CheckConstraint("kind IN ('ADMIN', 'RISK')", name="owner_freeze_kind_is_known"),
    CheckConstraint("length(reference) BETWEEN 1 AND 200", name="owner_freeze_reference_length"),
    CheckConstraint(
        "closing_reference IS NULL OR closed_at IS NOT NULL",
        name="owner_freeze_closing_reference_only_of_closed",
    ),
    CheckConstraint(
        "length(closing_reference) BETWEEN 1 AND 200", name="owner_freeze_closing_reference_length"
    ),
    CheckConstraint(
        "(closed_at IS NULL) = (closed_by IS NULL) AND (closed_at IS NULL) = (closing_reason IS NULL)"
        " AND (closed_at IS NULL) = (holds_resumed IS NULL)",
        name="owner_freeze_closed_whole_or_not_at_all",
    ),
    CheckConstraint("opened_at <= closed_at", name="owner_freeze_closed_after_opening"),
    CheckConstraint(
        "opened_by <> '' AND reason <> '' AND closed_by <> '' AND closing_reason <> ''",
        name="owner_freeze_says_who_and_why",
    ),
    CheckConstraint("holds_frozen >= 0 AND holds_resumed >= 0", name="owner_freeze_counts_not_negative"),
    CheckConstraint("length(payee_text) BETWEEN 1 AND 500", name="owner_freeze_payee_text_length"),
    CheckConstraint(
        "payee_text !~ '[[:cntrl:]]' AND payee_text = btrim(payee_text)",
        name="owner_freeze_payee_text_is_one_line",
    ),
)
Index(
    "owner_freeze_one_open_per_owner",
    owner_freeze.c.owner,
    unique=True,
    postgresql_where=text("closed_at IS NULL"),
)
# For the audit trail, as the indexes of `hold_freeze` below.
Index("owner_freeze_owner_idx", owner_freeze.c.owner)
Index("owner_freeze_opened_idx", owner_freeze.c.opened_at)
Index("owner_freeze_closed_idx", owner_freeze.c.closed_at, postgresql_where=text("closed_at IS NOT NULL"))
Index("owner_freeze_opened_by_idx", owner_freeze.c.opened_by, owner_freeze.c.opened_at)
Index(
    "owner_freeze_closed_by_idx",
    owner_freeze.c.closed_by,
    owner_freeze.c.closed_at,
    postgresql_where=text("closed_at IS NOT NULL"),
)

hold_freeze = Table(
    "hold_freeze",
    metadata,
    Column("freeze_id", BigInteger, Identity(always=True), primary_key=True),
    Column("hold_id", BigInteger, ForeignKey(hold.c.hold_id, name="hold_freeze_hold_fkey"), nullable=False),
    Column("kind", Text, nullable=False),
    Column(
        "backjob_id",
        BigInteger,
        ForeignKey(backjob.c.backjob_id, name="hold_freeze_backjob_fkey"),
        nullable=True,
    ),
    Column("opened_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    time_column("opened_at"),
    Column("closed_by", Text, nullable=True),
    Column("closing_reason", Text, nullable=True),
    time_column("closed_at", nullable=True),
    Column("reference", Text, nullable=True),
    Column("closing_reference", Text, nullable=True),
    Column(
        "owner_freeze_id",
        BigInteger,
        ForeignKey(owner_freeze.c.owner_freeze_id, name="hold_freeze_owner_freeze_fkey"),
        nullable=True,
    ),
    # Of a freeze of an earning with shares, by the id of its own hold, all rows have that id. Those after the
    # first one name the first.
    Column(
        "earning_id", BigInteger, ForeignKey(hold.c.hold_id, name="hold_freeze_earning_fkey"), nullable=True
    ),
    Column(
        "earning_freeze_id",
        BigInteger,
        ForeignKey("buffer.hold_freeze.freeze_id", name="hold_freeze_earning_freeze_fkey"),
        nullable=True,
    ),
    # What the payee is told. The reason is internal.
    Column("payee_text", Text, nullable=True),
    UniqueConstraint("reference", name="hold_freeze_reference_key"),
    UniqueConstraint("closing_reference", name="hold_freeze_closing_reference_key"),
    CheckConstraint("length(reference) BETWEEN 1 AND 200", name="hold_freeze_reference_length"),
    CheckConstraint(
        "closing_reference IS NULL OR closed_at IS NOT NULL",
        name="hold_freeze_closing_reference_only_of_closed",
    ),
    CheckConstraint(
        "length(closing_reference) BETWEEN 1 AND 200", name="hold_freeze_closing_reference_length"
    ),
    CheckConstraint("kind IN ('BACKJOB', 'ADMIN', 'RISK')", name="hold_freeze_kind_is_known"),
    CheckConstraint(
        "(kind = 'BACKJOB') = (backjob_id IS NOT NULL)", name="hold_freeze_has_backjob_iff_of_that_kind"
    ),
    CheckConstraint(
        "(closed_at IS NULL) = (closed_by IS NULL) AND (closed_at IS NULL) = (closing_reason IS NULL)",
        name="hold_freeze_closed_whole_or_not_at_all",
    ),
    CheckConstraint("opened_at <= closed_at", name="hold_freeze_closed_after_opening"),
    CheckConstraint(
        "opened_by <> '' AND reason <> '' AND closed_by <> '' AND closing_reason <> ''",
        name="hold_freeze_says_who_and_why",
    ),
    CheckConstraint(
        "owner_freeze_id IS NULL OR kind <> 'BACKJOB'", name="hold_freeze_of_an_owner_is_not_of_a_backjob"
    ),
    CheckConstraint(
        "owner_freeze_id IS NULL OR (reference IS NULL AND closing_reference IS NULL)",
        name="hold_freeze_of_an_owner_has_no_reference",
    ),
    CheckConstraint(
        "earning_id IS NULL OR (kind <> 'BACKJOB' AND owner_freeze_id IS NULL)",
        name="hold_freeze_of_an_earning_is_of_nothing_else",
    ),
    CheckConstraint(
        "earning_freeze_id IS NULL"
        " OR (earning_freeze_id < freeze_id AND earning_id IS NOT NULL AND reference IS NULL)",
        name="hold_freeze_of_a_share_follows_the_first",
    ),
    CheckConstraint("length(payee_text) BETWEEN 1 AND 500", name="hold_freeze_payee_text_length"),
    CheckConstraint(
        "payee_text !~ '[[:cntrl:]]' AND payee_text = btrim(payee_text)",
        name="hold_freeze_payee_text_is_one_line",
    ),
    CheckConstraint(
        "payee_text IS NULL OR (kind <> 'BACKJOB' AND owner_freeze_id IS NULL)",
        name="hold_freeze_payee_text_only_of_its_own",
    ),
)
Index("hold_freeze_open_idx", hold_freeze.c.hold_id, postgresql_where=text("closed_at IS NULL"))
Index("hold_freeze_hold_idx", hold_freeze.c.hold_id)
Index("hold_freeze_times_brin", hold_freeze.c.opened_at, hold_freeze.c.closed_at, postgresql_using="brin")
# For the audit trail, which lists the newest first, of all or of one person.
Index("hold_freeze_opened_idx", hold_freeze.c.opened_at)
Index("hold_freeze_closed_idx", hold_freeze.c.closed_at, postgresql_where=text("closed_at IS NOT NULL"))
Index("hold_freeze_opened_by_idx", hold_freeze.c.opened_by, hold_freeze.c.opened_at)
Index(
    "hold_freeze_closed_by_idx",
    hold_freeze.c.closed_by,
    hold_freeze.c.closed_at,
    postgresql_where=text("closed_at IS NOT NULL"),
)
Index("hold_freeze_backjob_hold_key", hold_freeze.c.backjob_id, hold_freeze.c.hold_id, unique=True)
Index(
    "hold_freeze_owner_freeze_hold_key",
    hold_freeze.c.owner_freeze_id,
    hold_freeze.c.hold_id,
    unique=True,
    postgresql_where=text("owner_freeze_id IS NOT NULL"),
)
Index(
    "hold_freeze_earning_freeze_hold_key",
    hold_freeze.c.earning_freeze_id,
    hold_freeze.c.hold_id,
    unique=True,
    postgresql_where=text("earning_freeze_id IS NOT NULL"),
)
