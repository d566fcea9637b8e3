"""The tables of the books, in a PostgreSQL schema of their own.

The schema is named, so that the books can stand in a platform's own database
beside its own tables, and no statement depends on a search path. Alembic's
migrations create them; a test compares the two.
"""

from typing import Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

SCHEMA: Final = "buffer"

metadata = MetaData(schema=SCHEMA)


def _when(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


# The decimal places of a currency, as they were when it was first used: what all its amounts are in. Written
# once, whatever ISO 4217's list says later. See docs/decisions/0023-a-currencys-places-are-stored.md.
currency = Table(
    "currency",
    metadata,
    Column("currency", Text, primary_key=True, doc="ISO 4217"),
    Column("places", SmallInteger, nullable=False, doc="decimal places of its minor unit"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_is_iso_4217"),
    CheckConstraint("places BETWEEN 0 AND 9", name="currency_places_in_range"),
)

wallet = Table(
    "wallet",
    metadata,
    Column("wallet_id", BigInteger, Identity(always=True), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("currency", Text, ForeignKey(currency.c.currency, name="wallet_currency_fkey"), nullable=False),
    Column("balance_minor", BigInteger, nullable=False, server_default=text("0")),
    Column("pending_earnings_minor", BigInteger, nullable=False, server_default=text("0")),
    UniqueConstraint("owner", "currency", name="wallet_owner_currency_key"),
    # What the foreign keys below point at: a wallet's money is in its currency.
    UniqueConstraint("wallet_id", "currency", name="wallet_id_currency_key"),
    CheckConstraint("length(owner) BETWEEN 1 AND 200", name="wallet_owner_length"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="wallet_currency_is_iso_4217"),
    CheckConstraint("balance_minor >= 0", name="wallet_balance_not_negative"),
    CheckConstraint("pending_earnings_minor >= 0", name="wallet_pending_earnings_not_negative"),
    # A release moves money within the sum, so it never overflows: see docs/decisions/0024.
    CheckConstraint(
        "balance_minor <= 9223372036854775807 - greatest(pending_earnings_minor, 0)",
        name="wallet_fits_a_bigint",
    ),
    # Room on each page, so that a changed balance stays beside its old version.
    postgresql_with={"fillfactor": 70},
)

# The platform's own id of the work, and who pays for it. By its row a new hold and a backjob on the same job
# wait for each other: see docs/decisions/0025-a-job-has-one-payer.md.
job = Table(
    "job",
    metadata,
    Column("job", Text, primary_key=True),
    Column("payer", Text, nullable=False),
    Column(
        "open_backjob_id",
        BigInteger,
        ForeignKey(f"{SCHEMA}.backjob.backjob_id", name="job_open_backjob_fkey"),
        nullable=True,
    ),
    CheckConstraint("length(job) BETWEEN 1 AND 200", name="job_name_length"),
    CheckConstraint("length(payer) BETWEEN 1 AND 200", name="job_payer_length"),
)
Index(
    "job_open_backjob_key",
    job.c.open_backjob_id,
    unique=True,
    postgresql_where=text("open_backjob_id IS NOT NULL"),
)

# What was agreed, written once: what becomes of it stands in `unsettled_hold` until it is settled, and in
# the transactions from then on. See docs/decisions/0014-a-hold-is-written-once.md.
hold = Table(
    "hold",
    metadata,
    Column("hold_id", BigInteger, Identity(always=True), primary_key=True),
    Column("reference", Text, nullable=False),
    Column("job", Text, ForeignKey(job.c.job, name="hold_job_fkey"), nullable=False),
    Column("title", Text, nullable=False, server_default=text("''")),
    Column("payee_wallet_id", BigInteger, nullable=False),
    Column("payer_wallet_id", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    _when("held_at"),
    _when("original_release_date"),
    UniqueConstraint("reference", name="hold_reference_key"),
    # What `unsettled_hold` refers to, and all that a transaction's references ask of a hold: an index
    # answers for both.
    UniqueConstraint("hold_id", "payee_wallet_id", "currency", name="hold_payee_currency_key"),
    ForeignKeyConstraint(
        ["payee_wallet_id", "currency"],
        [f"{SCHEMA}.wallet.wallet_id", f"{SCHEMA}.wallet.currency"],
        name="hold_payee_wallet_fkey",
    ),
    ForeignKeyConstraint(
        ["payer_wallet_id", "currency"],
        [f"{SCHEMA}.wallet.wallet_id", f"{SCHEMA}.wallet.currency"],
        name="hold_payer_wallet_fkey",
    ),
    CheckConstraint("length(reference) BETWEEN 1 AND 200", name="hold_reference_length"),
    CheckConstraint("length(job) BETWEEN 1 AND 200", name="hold_job_length"),
    CheckConstraint("length(title) <= 500", name="hold_title_length"),
    CheckConstraint("amount_minor BETWEEN 1 AND 1000000000000000", name="hold_amount_in_range"),
    CheckConstraint("held_at <= original_release_date", name="hold_released_after_it_was_held"),
    CheckConstraint("payee_wallet_id <> payer_wallet_id", name="hold_payer_is_not_payee"),
    CheckConstraint(
        "held_at >= timestamptz '1970-01-01 00:00:00+00'"
        " AND original_release_date < timestamptz '3000-01-01 00:00:00+00'",
        name="hold_dates_in_range",
    ),
)
Index("hold_job_idx", hold.c.job)

# What still waits: BUFFERED or FROZEN. Its row goes when the hold is settled, in the statement that writes
# the transaction, so the table is as large as the buffer and no larger.
unsettled_hold = Table(
    "unsettled_hold",
    metadata,
    Column("hold_id", BigInteger, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False, server_default=text("'BUFFERED'")),
    Column("payee_wallet_id", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False, doc="what it still holds: less what was refunded"),
    _when("release_date"),
    Column(
        "release_hour",
        DateTime(timezone=True),
        Computed("date_bin('1 hour', release_date, timestamptz '2000-01-01 00:00:00+00')", persisted=True),
        nullable=False,
    ),
    ForeignKeyConstraint(
        ["hold_id", "payee_wallet_id", "currency"],
        [hold.c.hold_id, hold.c.payee_wallet_id, hold.c.currency],
        name="unsettled_hold_hold_fkey",
    ),
    CheckConstraint("state IN ('BUFFERED', 'FROZEN')", name="unsettled_hold_state_is_known"),
    CheckConstraint("amount_minor > 0", name="unsettled_hold_holds_something"),
    # A queue: what one hour empties the next is to fill again. An emptied page of an index can be used by
    # then only if vacuum has come twice, for the deletions and behind some insertions. And whoever reads from
    # a page with less than a tenth free tidies it first: a release would, at hold after hold.
    postgresql_with={
        "autovacuum_vacuum_scale_factor": 0.02,
        "autovacuum_vacuum_insert_scale_factor": 0.02,
        "vacuum_index_cleanup": "on",
        "fillfactor": 90,
    },
)
# What is due, the oldest release hour first; within an hour wallet by wallet,
# so that a batch touches as few wallets as it can.
Index(
    "unsettled_hold_due_idx",
    unsettled_hold.c.release_hour,
    unsettled_hold.c.payee_wallet_id,
    unsettled_hold.c.hold_id,
    postgresql_where=text("state = 'BUFFERED'"),
)

# One without an open freeze is looked for every few minutes.
Index("unsettled_hold_frozen_idx", unsettled_hold.c.hold_id, postgresql_where=text("state = 'FROZEN'"))

# Each hold as it stands: a view, for reading. The last line of a settled hold says how it was settled.
hold_status = Table(
    "hold_status",
    MetaData(schema=SCHEMA),
    Column("hold_id", BigInteger, nullable=False),
    Column("reference", Text, nullable=False),
    Column("job", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("payee_wallet_id", BigInteger, nullable=False),
    Column("payer_wallet_id", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("refunded_minor", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    _when("held_at"),
    _when("original_release_date"),
    _when("release_date"),
    _when("settled_at", nullable=True),
)

backjob = Table(
    "backjob",
    metadata,
    Column("backjob_id", BigInteger, Identity(always=True), primary_key=True),
    Column("reference", Text, nullable=True),
    Column("job", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'OPEN'")),
    Column("requested_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    _when("requested_at"),
    Column("decided_by", Text, nullable=True),
    Column("decision_reason", Text, nullable=True),
    _when("decided_at", nullable=True),
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
    _when("opened_at"),
    Column("closed_by", Text, nullable=True),
    Column("closing_reason", Text, nullable=True),
    _when("closed_at", nullable=True),
    Column("reference", Text, nullable=True),
    Column("closing_reference", Text, nullable=True),
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
)
Index("hold_freeze_open_idx", hold_freeze.c.hold_id, postgresql_where=text("closed_at IS NULL"))
Index("hold_freeze_hold_idx", hold_freeze.c.hold_id)
Index("hold_freeze_times_brin", hold_freeze.c.opened_at, hold_freeze.c.closed_at, postgresql_using="brin")
Index("hold_freeze_backjob_hold_key", hold_freeze.c.backjob_id, hold_freeze.c.hold_id, unique=True)

batch = Table(
    "batch",
    metadata,
    Column("batch_id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("reason", Text, nullable=True),
    _when("due_by", nullable=True),
    _when("recorded_at"),
    # REFUND: an admin's, of one frozen hold.
    CheckConstraint("kind IN ('DUE', 'EARLY', 'REFUND')", name="batch_kind_is_known"),
    CheckConstraint(
        "(kind = 'DUE') = (reason IS NULL) AND (kind = 'DUE') = (due_by IS NOT NULL)",
        name="batch_is_due_or_has_a_reason",
    ),
    CheckConstraint("due_by <= recorded_at", name="batch_recorded_when_due"),
    CheckConstraint("source <> '' AND reason <> ''", name="batch_says_who_and_why"),
)

# Its references to wallets, holds, backjobs and batches are checked once a statement
# by a trigger (migration 0001), not row by row by foreign keys: see
# docs/decisions/0003-references-checked-per-statement.md.
transaction = Table(
    "transaction",
    metadata,
    Column("transaction_id", BigInteger, Identity(always=True), primary_key=True),
    Column("type", Text, nullable=False),
    Column("from_account", Text, nullable=False),
    Column("from_wallet_id", BigInteger, nullable=True),
    Column("to_account", Text, nullable=False),
    Column("to_wallet_id", BigInteger, nullable=True),
    Column("currency", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("balance_after_minor", BigInteger, nullable=True),
    Column("hold_id", BigInteger, nullable=True),
    Column("backjob_id", BigInteger, nullable=True),
    Column("batch_id", BigInteger, nullable=True),
    Column("reference", Text, nullable=True),
    _when("recorded_at"),
    # When the settled hold was due: its own row is gone by then.
    _when("release_date", nullable=True),
    CheckConstraint("amount_minor BETWEEN 1 AND 1000000000000000", name="transaction_amount_in_range"),
    # Which accounts a type moves money between, one line a type.
    CheckConstraint(
        "(type, from_account, to_account) IN ("
        "('PENDING_EARNING', 'ESCROW', 'PENDING_EARNINGS'),"
        " ('EARNING', 'PENDING_EARNINGS', 'BALANCE'),"
        " ('REFUND', 'PENDING_EARNINGS', 'BALANCE'),"
        " ('DEPOSIT', 'EXTERNAL', 'BALANCE'),"
        " ('WITHDRAWAL', 'BALANCE', 'EXTERNAL'),"
        " ('OPENING_BALANCE', 'OPENING', 'BALANCE'))",
        name="transaction_type_names_its_accounts",
    ),
    CheckConstraint(
        "(from_account IN ('BALANCE', 'PENDING_EARNINGS')) = (from_wallet_id IS NOT NULL)",
        name="transaction_from_wallet_iff_its_account",
    ),
    CheckConstraint(
        "(to_account IN ('BALANCE', 'PENDING_EARNINGS')) = (to_wallet_id IS NOT NULL)",
        name="transaction_to_wallet_iff_its_account",
    ),
    CheckConstraint(
        "type <> 'EARNING' OR from_wallet_id = to_wallet_id",
        name="transaction_earning_stays_at_its_wallet",
    ),
    CheckConstraint(
        "('BALANCE' IN (from_account, to_account)) = (balance_after_minor IS NOT NULL)"
        " AND balance_after_minor >= 0",
        name="transaction_balance_after_iff_balance_moves",
    ),
    CheckConstraint(
        "(type IN ('PENDING_EARNING', 'EARNING', 'REFUND')) = (hold_id IS NOT NULL)",
        name="transaction_hold_iff_of_a_hold",
    ),
    # A refund is a backjob's, or an admin's, which is a batch and has a reference.
    CheckConstraint(
        "(batch_id IS NOT NULL) = (type = 'EARNING' OR (type = 'REFUND' AND backjob_id IS NULL))",
        name="transaction_batch_iff_earning_or_refund_by_admin",
    ),
    CheckConstraint("type = 'REFUND' OR backjob_id IS NULL", name="transaction_backjob_only_of_refund"),
    CheckConstraint(
        "(reference IS NOT NULL) = (type IN ('DEPOSIT', 'WITHDRAWAL', 'OPENING_BALANCE')"
        " OR (type = 'REFUND' AND backjob_id IS NULL))",
        name="transaction_reference_iff_named_by_caller",
    ),
    CheckConstraint(
        "(type IN ('EARNING', 'REFUND')) = (release_date IS NOT NULL)",
        name="transaction_release_date_iff_it_settles",
    ),
)
# A hold is settled once: one EARNING, and one REFUND for each backjob or admin's refund. What every release
# writes stands in an index of its own, which has nothing but what it is asked for: see docs/decisions/0018.
Index(
    "transaction_hold_earned_key",
    transaction.c.hold_id,
    unique=True,
    postgresql_where=text("type = 'EARNING'"),
)
Index(
    "transaction_hold_line_key",
    transaction.c.hold_id,
    transaction.c.type,
    transaction.c.backjob_id,
    transaction.c.batch_id,
    unique=True,
    postgresql_nulls_not_distinct=True,
    postgresql_where=text("hold_id IS NOT NULL AND type <> 'EARNING'"),
)
Index(
    "transaction_reference_key",
    transaction.c.reference,
    unique=True,
    postgresql_where=text("reference IS NOT NULL"),
)
# By generation, which is 131,072 transactions: what is written now lies on the few pages of the newest,
# however long the history. Who asks for a wallet's lines asks each generation: see docs/decisions/0019.
Index(
    "transaction_generation_to_wallet_idx",
    text("(transaction_id >> 17)"),
    transaction.c.to_wallet_id,
    transaction.c.transaction_id,
)
Index(
    "transaction_from_wallet_idx",
    transaction.c.from_wallet_id,
    transaction.c.transaction_id,
    postgresql_where=text("from_wallet_id IS DISTINCT FROM to_wallet_id"),
)

# Both grow with the table, so a block-range index finds them at next to no cost a row.
Index(
    "transaction_recorded_brin",
    transaction.c.recorded_at,
    transaction.c.batch_id,
    postgresql_using="brin",
)

# A link of the chain of digests over the transactions: see docs/decisions/0020.
seal = Table(
    "seal",
    metadata,
    Column("seal_id", BigInteger, primary_key=True, autoincrement=False),
    Column("first_id", BigInteger, nullable=False),
    Column("through_id", BigInteger, nullable=False),
    Column("lines", BigInteger, nullable=False),
    Column("transaction_ids", ARRAY(BigInteger), nullable=True, doc="where some between are missing"),
    Column("line_digests", LargeBinary, nullable=False, doc="16 bytes of each line's SHA-256, by id"),
    Column("digest", LargeBinary, nullable=False, doc="SHA-256 over the link before and all of this one"),
    _when("sealed_at"),
    UniqueConstraint("first_id", name="seal_first_id_key"),
    CheckConstraint("seal_id BETWEEN 1 AND 4611686018427387904", name="seal_counts_from_one"),
    CheckConstraint("lines > 0 AND through_id >= first_id", name="seal_has_lines"),
    CheckConstraint(
        "(through_id - first_id + 1 = lines) = (transaction_ids IS NULL)"
        " AND cardinality(transaction_ids) = lines",
        name="seal_names_its_lines_iff_some_between_are_missing",
    ),
    CheckConstraint("length(line_digests) = 16 * lines", name="seal_has_a_digest_of_each_line"),
    CheckConstraint("length(digest) = 32", name="seal_digest_length"),
)

# An outbox stands by itself: no foreign key, so that it can be pruned or moved.
notification = Table(
    "notification",
    metadata,
    Column("notification_id", BigInteger, Identity(always=True), primary_key=True),
    Column("type", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("hold_id", BigInteger, nullable=True),
    Column("backjob_id", BigInteger, nullable=True),
    Column("currency", Text, nullable=True),
    Column("amount_minor", BigInteger, nullable=True),
    _when("release_date", nullable=True),
    _when("created_at"),
    _when("dispatched_at", nullable=True),
    CheckConstraint(
        "type IN ('PAYMENT_PENDING', 'PAYMENT_RELEASED', 'PAYMENT_FROZEN', 'PAYMENT_RESUMED',"
        " 'PAYMENT_REFUNDED', 'BACKJOB_RECEIVED', 'BACKJOB_REJECTED', 'BACKJOB_APPROVED')",
        name="notification_type_is_known",
    ),
    CheckConstraint(
        "(type LIKE 'PAYMENT\\_%') = (hold_id IS NOT NULL)"
        " AND (hold_id IS NULL) = (amount_minor IS NULL)"
        " AND (amount_minor IS NULL) = (currency IS NULL)",
        name="notification_of_a_payment_names_its_hold",
    ),
    CheckConstraint(
        "type NOT LIKE 'BACKJOB\\_%' OR backjob_id IS NOT NULL",
        name="notification_of_a_backjob_names_it",
    ),
    # Dispatching leaves a dead entry in the index below, whose size is to follow what waits and not, as a
    # share of all that there ever was would, the history; and vacuum passes over the indexes of a table of
    # which it finds less than a fiftieth dead unless it is told.
    postgresql_with={
        "autovacuum_vacuum_scale_factor": 0,
        "autovacuum_vacuum_threshold": 50000,
        "vacuum_index_cleanup": "on",
    },
)
Index(
    "notification_undispatched_idx",
    notification.c.notification_id,
    postgresql_where=text("dispatched_at IS NULL"),
)

# A notification on its way to one endpoint. No foreign key, as the outbox has none: the one statement
# that writes deliveries reads their notifications, and who prunes the outbox prunes both.
delivery = Table(
    "delivery",
    metadata,
    Column("delivery_id", BigInteger, Identity(always=True), primary_key=True),
    Column("notification_id", BigInteger, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'WAITING'")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    _when("created_at"),
    _when("next_attempt_at"),
    _when("first_attempt_at", nullable=True),
    Column("lease", Uuid, nullable=True),
    _when("leased_until", nullable=True),
    _when("settled_at", nullable=True),
    Column("reason", Text, nullable=True),
    UniqueConstraint("notification_id", "endpoint", name="delivery_notification_endpoint_key"),
    CheckConstraint("length(endpoint) BETWEEN 1 AND 63", name="delivery_endpoint_length"),
    CheckConstraint("length(owner) BETWEEN 1 AND 200", name="delivery_owner_length"),
    CheckConstraint("length(reason) BETWEEN 1 AND 1000", name="delivery_reason_length"),
    CheckConstraint("state IN ('WAITING', 'DELIVERED', 'DEAD')", name="delivery_state_is_known"),
    CheckConstraint("attempts >= 0", name="delivery_attempts_not_negative"),
    CheckConstraint(
        "(attempts = 0) = (first_attempt_at IS NULL)", name="delivery_first_attempt_iff_attempted"
    ),
    CheckConstraint("state = 'WAITING' OR attempts > 0", name="delivery_settled_only_after_an_attempt"),
    CheckConstraint("(state = 'WAITING') = (settled_at IS NULL)", name="delivery_settled_at_iff_not_waiting"),
    # Why it failed last; dead letters always have one.
    CheckConstraint(
        "(attempts > 0 AND state <> 'DELIVERED') = (reason IS NOT NULL)", name="delivery_reason_iff_failed"
    ),
    CheckConstraint("(lease IS NULL) = (leased_until IS NULL)", name="delivery_lease_has_an_end"),
    CheckConstraint("state = 'WAITING' OR lease IS NULL", name="delivery_leased_only_while_waiting"),
    # A lease comes and goes, without touching an index, beside the row's old version.
    postgresql_with={"fillfactor": 70},
)
# A lane is what waits for one owner at one endpoint, in the order in which it is sent.
Index(
    "delivery_waiting_idx",
    delivery.c.endpoint,
    delivery.c.owner,
    delivery.c.delivery_id,
    postgresql_where=text("state = 'WAITING'"),
)
Index(
    "delivery_dead_idx",
    delivery.c.settled_at,
    delivery.c.delivery_id,
    postgresql_where=text("state = 'DEAD'"),
)
Index("delivery_owner_idx", delivery.c.owner, delivery.c.delivery_id)

# An endpoint whose receiver does not answer, and until when it is left alone; then a probe decides.
endpoint_pause = Table(
    "endpoint_pause",
    metadata,
    Column("endpoint", Text, primary_key=True),
    _when("open_until"),
    Column("reason", Text, nullable=False),
    CheckConstraint("length(endpoint) BETWEEN 1 AND 63", name="endpoint_pause_endpoint_length"),
    CheckConstraint("length(reason) BETWEEN 1 AND 1000", name="endpoint_pause_reason_length"),
)

# How an owner is spoken to; where a column is empty, the settings say.
contact = Table(
    "contact",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("locale", Text, nullable=True),
    Column("time_zone", Text, nullable=True),
    Column("email", Text, nullable=True),
    _when("updated_at"),
    CheckConstraint("length(owner) BETWEEN 1 AND 200", name="contact_owner_length"),
    CheckConstraint("length(locale) BETWEEN 1 AND 35", name="contact_locale_length"),
    CheckConstraint("length(time_zone) BETWEEN 1 AND 64", name="contact_time_zone_length"),
    CheckConstraint(
        "length(email) BETWEEN 3 AND 254 AND position('@' IN email) > 0", name="contact_email_is_an_address"
    ),
)

# What the platform's app shows; a notification is in it once.
inbox_message = Table(
    "inbox_message",
    metadata,
    Column("notification_id", BigInteger, primary_key=True, autoincrement=False),
    Column("owner", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("hold_id", BigInteger, nullable=True),
    Column("backjob_id", BigInteger, nullable=True),
    _when("created_at"),
    _when("read_at", nullable=True),
)
Index("inbox_message_owner_idx", inbox_message.c.owner, inbox_message.c.notification_id.desc())
Index(
    "inbox_message_unread_idx",
    inbox_message.c.owner,
    inbox_message.c.notification_id.desc(),
    postgresql_where=text("read_at IS NULL"),
)

# The hours whose figures stand in the next table; an hour in which nothing happened has a row here alone.
counted_hour = Table(
    "counted_hour",
    metadata,
    Column("hour", DateTime(timezone=True), primary_key=True),
    Column("counted_by", Text, nullable=False),
    _when("counted_at"),
    CheckConstraint(
        "hour = date_bin('1 hour', hour, timestamptz '2000-01-01 00:00:00+00')",
        name="counted_hour_is_whole",
    ),
    CheckConstraint("counted_at >= hour + interval '1 hour'", name="counted_hour_was_over"),
)

# A report, deleted and written again whenever an hour is counted; no money depends on it.
hourly_release_count = Table(
    "hourly_release_count",
    metadata,
    Column(
        "hour",
        DateTime(timezone=True),
        ForeignKey(counted_hour.c.hour, name="hourly_release_count_hour_fkey", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("currency", Text, nullable=False, doc="ISO 4217"),
    Column("holds_added", BigInteger, nullable=False, doc="payments that came into the buffer"),
    Column("added_minor", BigInteger, nullable=False, doc="what they came to"),
    Column("holds_released", BigInteger, nullable=False, doc="payments released, early ones included"),
    Column("holds_released_early", BigInteger, nullable=False, doc="by the payer or an admin"),
    Column("released_minor", BigInteger, nullable=False, doc="what was released"),
    Column("payees", BigInteger, nullable=False, doc="different wallets that were released to"),
    Column("lateness_median_seconds", Double, nullable=True, doc="released_at - release_date, on schedule"),
    Column("lateness_max_seconds", Double, nullable=True, doc="released_at - release_date, on schedule"),
    Column("refunds", BigInteger, nullable=False, doc="refunds; a payment may be refunded in parts"),
    Column("refunded_minor", BigInteger, nullable=False, doc="what was refunded"),
    Column("freezes_opened", BigInteger, nullable=False, doc="backjob, admin and risk freezes"),
    Column("freezes_closed", BigInteger, nullable=False, doc="backjob, admin and risk freezes"),
    PrimaryKeyConstraint("hour", "currency"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="hourly_release_count_currency_is_iso_4217"),
    CheckConstraint(
        "(holds_added = 0) = (added_minor = 0) AND (holds_released = 0) = (released_minor = 0)"
        " AND (refunds = 0) = (refunded_minor = 0)",
        name="hourly_release_count_amount_iff_counted",
    ),
    CheckConstraint(
        "(holds_released = 0) = (payees = 0) AND payees <= holds_released",
        name="hourly_release_count_payees_iff_released",
    ),
    CheckConstraint(
        "(holds_released = holds_released_early) = (lateness_max_seconds IS NULL)"
        " AND (lateness_max_seconds IS NULL) = (lateness_median_seconds IS NULL)",
        name="hourly_release_count_lateness_iff_released_on_schedule",
    ),
    CheckConstraint(
        "least(holds_added, holds_released_early, holds_released - holds_released_early, refunds,"
        " freezes_opened, freezes_closed) >= 0",
        name="hourly_release_count_not_negative",
    ),
)

# What operators have been told: a row an alert, with the holds that it was about.
# Failed runs are not here: they are told of while the books are away.
alert = Table(
    "alert",
    metadata,
    Column("alert_id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    _when("period"),
    Column("hold_ids", ARRAY(BigInteger), nullable=False),
    _when("sent_at"),
    CheckConstraint("kind IN ('STUCK_PAYMENT', 'OVERDUE_RELEASE')", name="alert_kind_is_known"),
    CheckConstraint(
        "(kind = 'STUCK_PAYMENT') = (cardinality(hold_ids) > 0)",
        name="alert_has_holds_iff_of_stuck_payments",
    ),
)
Index("alert_period_idx", alert.c.kind, alert.c.period)
