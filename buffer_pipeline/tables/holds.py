"""Jobs and holds."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from buffer_pipeline.tables.rules import hold_rule
from buffer_pipeline.tables.schema import SCHEMA, metadata, time_column

# The platform's own id of the work, and its payer. Adding a hold and requesting a backjob on the same job
# both lock this row, so they wait for each other: see docs/decisions/0025-a-job-has-one-payer.md.
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

# What was agreed; a row is written once. The state is in `unsettled_hold` until the hold is settled, and in
# the transactions after that. See docs/decisions/0014-a-hold-is-written-once.md.
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
    time_column("held_at"),
    time_column("original_release_date"),
    Column("metadata", JSONB, nullable=True, doc="the platform's own, as in hold_metadata.py"),
    # None: the settings' defaults.
    Column("rule_id", BigInteger, ForeignKey(hold_rule.c.rule_id, name="hold_rule_fkey"), nullable=True),
    # The shares of an earning are holds with one reference. The payee's is the first, and the others name it.
    Column("kind", Text, nullable=False, server_default=text("'PAYEE'")),
    Column("earning_id", BigInteger, nullable=True, doc="the first share; NULL for that one itself"),
    Column("earning_minor", BigInteger, nullable=True, doc="of a first share: the sum of all its shares"),
    # Target of the foreign key of `unsettled_hold`. It also has all columns that the check of a transaction's
    # references needs, so the index answers alone.
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
    ForeignKeyConstraint(["earning_id"], [f"{SCHEMA}.hold.hold_id"], name="hold_earning_fkey"),
    CheckConstraint("kind IN ('PAYEE', 'FEE', 'TAX', 'RESERVE')", name="hold_kind_is_known"),
    CheckConstraint("earning_id IS NOT NULL OR kind = 'PAYEE'", name="hold_first_share_is_the_payees"),
    CheckConstraint("earning_id < hold_id", name="hold_share_follows_the_first"),
    CheckConstraint(
        "earning_minor IS NULL OR (earning_minor > amount_minor AND earning_id IS NULL)",
        name="hold_earning_has_shares",
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
    CheckConstraint(
        "jsonb_typeof(metadata) = 'object' AND metadata <> '{}'::jsonb", name="hold_metadata_is_an_object"
    ),
    CheckConstraint(
        "NOT jsonb_path_exists(metadata,"
        ' \'strict $.* ? (@.type() == "object" || @.type() == "array")\'::jsonpath,'
        " '{}'::jsonb, TRUE)",
        name="hold_metadata_is_flat",
    ),
    CheckConstraint("length(metadata::text) <= 65536", name="hold_metadata_is_small"),
)
Index(
    "hold_metadata_idx",
    hold.c.metadata,
    postgresql_using="gin",
    postgresql_ops={"metadata": "jsonb_path_ops"},
    postgresql_where=text("metadata IS NOT NULL"),
)
Index("hold_job_idx", hold.c.job)
Index("hold_reference_key", hold.c.reference, unique=True, postgresql_where=text("earning_id IS NULL"))
Index("hold_earning_idx", hold.c.earning_id, postgresql_where=text("earning_id IS NOT NULL"))
# The holds of a payer, by generation (docs/decisions/0019). A payee's are found by their transactions.
Index("hold_generation_payer_idx", text("(hold_id >> 17)"), hold.c.payer_wallet_id, hold.c.hold_id)

# The holds that still wait: BUFFERED or FROZEN. The statement that settles a hold deletes its row here and
# writes the transaction, so the table is only as large as the buffer.
unsettled_hold = Table(
    "unsettled_hold",
    metadata,
    Column("hold_id", BigInteger, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False, server_default=text("'BUFFERED'")),
    Column("payee_wallet_id", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False, doc="what it still holds: less what was refunded"),
    time_column("release_date"),
    Column(
        "release_hour",
        DateTime(timezone=True),
        Computed("date_bin('1 hour', release_date, timestamptz '2000-01-01 00:00:00+00')", persisted=True),
        nullable=False,
    ),
    Column("kind", Text, nullable=False, server_default=text("'PAYEE'")),
    ForeignKeyConstraint(
        ["hold_id", "payee_wallet_id", "currency"],
        [hold.c.hold_id, hold.c.payee_wallet_id, hold.c.currency],
        name="unsettled_hold_hold_fkey",
    ),
    CheckConstraint("state IN ('BUFFERED', 'FROZEN')", name="unsettled_hold_state_is_known"),
    CheckConstraint("kind IN ('PAYEE', 'FEE', 'TAX', 'RESERVE')", name="unsettled_hold_kind_is_known"),
    CheckConstraint("amount_minor > 0", name="unsettled_hold_holds_something"),
    # The table is a queue: each hour deletes rows and the next hour adds as many. An emptied index page can
    # be used again only after two vacuums, one after the deletions and one after some insertions, so
    # autovacuum comes early. `fillfactor` 90: a reader of a page with less than a tenth free prunes it first,
    # and a release would do so at almost every hold.
    postgresql_with={
        "autovacuum_vacuum_scale_factor": 0.02,
        "autovacuum_vacuum_insert_scale_factor": 0.02,
        "vacuum_index_cleanup": "on",
        "fillfactor": 90,
    },
)
# The holds in the order of release: the oldest release hour first, and within an hour wallet by wallet, so
# that a batch changes as few wallets as possible.
Index(
    "unsettled_hold_due_idx",
    unsettled_hold.c.release_hour,
    unsettled_hold.c.payee_wallet_id,
    unsettled_hold.c.hold_id,
    postgresql_where=text("state = 'BUFFERED'"),
)

# Used every few minutes to find FROZEN holds without an open freeze.
Index("unsettled_hold_frozen_idx", unsettled_hold.c.hold_id, postgresql_where=text("state = 'FROZEN'"))

# What waits for a payee.
Index("unsettled_hold_payee_idx", unsettled_hold.c.payee_wallet_id, unsettled_hold.c.hold_id)

# A view with the present state of every hold. The state of a settled hold comes from its last transaction.
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
    time_column("held_at"),
    time_column("original_release_date"),
    time_column("release_date"),
    time_column("settled_at", nullable=True),
    Column("metadata", JSONB, nullable=True),
    Column("rule_id", BigInteger, nullable=True),
    Column("kind", Text, nullable=False),
    Column("earning_id", BigInteger, nullable=True),
    Column("earning_minor", BigInteger, nullable=True),
    Column("released_minor", BigInteger, nullable=False),
)
