"""The books: wallets, holds, backjobs, freezes, batches, transactions and the outbox."""

import sqlalchemy as sa
from alembic import op

from buffer_pipeline.migrations.first_triggers import APPEND_ONLY, REFERENCES

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "backjob",
        sa.Column("backjob_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'OPEN'"), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decision_reason", sa.Text(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refunded_minor", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "(state = 'APPROVED') = (refunded_minor IS NOT NULL)",
            name="backjob_refunds_iff_approved",
        ),
        sa.CheckConstraint(
            "(state = 'OPEN') = (decided_at IS NULL) AND (decided_at IS NULL) = (decided_by IS NULL) AND (decided_at IS NULL) = (decision_reason IS NULL)",
            name="backjob_decided_iff_not_open",
        ),
        sa.CheckConstraint(
            "state IN ('OPEN', 'REJECTED', 'APPROVED', 'WITHDRAWN')", name="backjob_state_is_known"
        ),
        sa.CheckConstraint("refunded_minor > 0", name="backjob_refund_is_positive"),
        sa.PrimaryKeyConstraint("backjob_id"),
        sa.UniqueConstraint("reference", name="backjob_reference_key"),
        schema="buffer",
    )
    op.create_index("backjob_job_idx", "backjob", ["job"], unique=False, schema="buffer")
    op.create_index(
        "backjob_one_open_per_job",
        "backjob",
        ["job"],
        unique=True,
        schema="buffer",
        postgresql_where=sa.text("state = 'OPEN'"),
    )
    op.create_table(
        "batch",
        sa.Column("batch_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("due_by", sa.DateTime(timezone=True), nullable=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(kind = 'EARLY') = (reason IS NOT NULL) AND (kind = 'DUE') = (due_by IS NOT NULL)",
            name="batch_is_due_or_has_a_reason",
        ),
        sa.CheckConstraint("kind IN ('DUE', 'EARLY')", name="batch_kind_is_known"),
        sa.PrimaryKeyConstraint("batch_id"),
        schema="buffer",
    )
    op.create_table(
        "notification",
        sa.Column("notification_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("hold_id", sa.BigInteger(), nullable=True),
        sa.Column("backjob_id", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=True),
        sa.Column("release_date", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(type LIKE 'PAYMENT\\_%') = (hold_id IS NOT NULL) AND (hold_id IS NULL) = (amount_minor IS NULL) AND (amount_minor IS NULL) = (currency IS NULL)",
            name="notification_of_a_payment_names_its_hold",
        ),
        sa.CheckConstraint(
            "type IN ('PAYMENT_PENDING', 'PAYMENT_RELEASED', 'PAYMENT_FROZEN', 'PAYMENT_RESUMED', 'PAYMENT_REFUNDED', 'BACKJOB_RECEIVED', 'BACKJOB_REJECTED', 'BACKJOB_APPROVED')",
            name="notification_type_is_known",
        ),
        sa.CheckConstraint(
            "type NOT LIKE 'BACKJOB\\_%' OR backjob_id IS NOT NULL",
            name="notification_of_a_backjob_names_it",
        ),
        sa.PrimaryKeyConstraint("notification_id"),
        schema="buffer",
    )
    op.create_index(
        "notification_waiting_idx",
        "notification",
        ["notification_id"],
        unique=False,
        schema="buffer",
        postgresql_where=sa.text("delivered_at IS NULL"),
    )
    op.create_table(
        "transaction",
        sa.Column("transaction_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("from_account", sa.Text(), nullable=False),
        sa.Column("from_wallet_id", sa.BigInteger(), nullable=True),
        sa.Column("to_account", sa.Text(), nullable=False),
        sa.Column("to_wallet_id", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("balance_after_minor", sa.BigInteger(), nullable=True),
        sa.Column("hold_id", sa.BigInteger(), nullable=True),
        sa.Column("backjob_id", sa.BigInteger(), nullable=True),
        sa.Column("batch_id", sa.BigInteger(), nullable=True),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "('BALANCE' IN (from_account, to_account)) = (balance_after_minor IS NOT NULL) AND balance_after_minor >= 0",
            name="transaction_balance_after_iff_balance_moves",
        ),
        sa.CheckConstraint(
            "(from_account IN ('BALANCE', 'PENDING_EARNINGS')) = (from_wallet_id IS NOT NULL)",
            name="transaction_from_wallet_iff_its_account",
        ),
        sa.CheckConstraint(
            "(to_account IN ('BALANCE', 'PENDING_EARNINGS')) = (to_wallet_id IS NOT NULL)",
            name="transaction_to_wallet_iff_its_account",
        ),
        sa.CheckConstraint(
            "(type = 'EARNING') = (batch_id IS NOT NULL)", name="transaction_batch_iff_earning"
        ),
        sa.CheckConstraint(
            "(type = 'REFUND') = (backjob_id IS NOT NULL)", name="transaction_backjob_iff_refund"
        ),
        sa.CheckConstraint(
            "(type IN ('DEPOSIT', 'WITHDRAWAL', 'OPENING_BALANCE')) = (reference IS NOT NULL)",
            name="transaction_reference_iff_without_hold",
        ),
        sa.CheckConstraint(
            "(type IN ('PENDING_EARNING', 'EARNING', 'REFUND')) = (hold_id IS NOT NULL)",
            name="transaction_hold_iff_of_a_hold",
        ),
        sa.CheckConstraint(
            "(type, from_account, to_account) IN (('PENDING_EARNING', 'ESCROW', 'PENDING_EARNINGS'), ('EARNING', 'PENDING_EARNINGS', 'BALANCE'), ('REFUND', 'PENDING_EARNINGS', 'BALANCE'), ('DEPOSIT', 'EXTERNAL', 'BALANCE'), ('WITHDRAWAL', 'BALANCE', 'EXTERNAL'), ('OPENING_BALANCE', 'OPENING', 'BALANCE'))",
            name="transaction_type_names_its_accounts",
        ),
        sa.CheckConstraint(
            "type <> 'EARNING' OR from_wallet_id = to_wallet_id",
            name="transaction_earning_stays_at_its_wallet",
        ),
        sa.CheckConstraint("amount_minor BETWEEN 1 AND 1000000000000000", name="transaction_amount_in_range"),
        sa.PrimaryKeyConstraint("transaction_id"),
        schema="buffer",
    )
    op.create_index(
        "transaction_from_wallet_idx",
        "transaction",
        ["from_wallet_id", "transaction_id"],
        unique=False,
        schema="buffer",
        postgresql_where=sa.text("from_wallet_id IS DISTINCT FROM to_wallet_id"),
    )
    op.create_index(
        "transaction_hold_type_key",
        "transaction",
        ["hold_id", "type", "backjob_id"],
        unique=True,
        schema="buffer",
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("hold_id IS NOT NULL"),
    )
    op.create_index(
        "transaction_recorded_brin",
        "transaction",
        ["recorded_at", "batch_id"],
        unique=False,
        schema="buffer",
        postgresql_using="brin",
    )
    op.create_index(
        "transaction_reference_key",
        "transaction",
        ["reference"],
        unique=True,
        schema="buffer",
        postgresql_where=sa.text("reference IS NOT NULL"),
    )
    op.create_index(
        "transaction_to_wallet_idx",
        "transaction",
        ["to_wallet_id", "transaction_id"],
        unique=False,
        schema="buffer",
    )
    op.create_table(
        "wallet",
        sa.Column("wallet_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("balance_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pending_earnings_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="wallet_currency_is_iso_4217"),
        sa.CheckConstraint("balance_minor >= 0", name="wallet_balance_not_negative"),
        sa.CheckConstraint("length(owner) BETWEEN 1 AND 200", name="wallet_owner_length"),
        sa.CheckConstraint("pending_earnings_minor >= 0", name="wallet_pending_earnings_not_negative"),
        sa.PrimaryKeyConstraint("wallet_id"),
        sa.UniqueConstraint("owner", "currency", name="wallet_owner_currency_key"),
        sa.UniqueConstraint("wallet_id", "currency", name="wallet_id_currency_key"),
        schema="buffer",
        postgresql_with={"fillfactor": 70},
    )
    op.create_table(
        "hold",
        sa.Column("hold_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("payee_wallet_id", sa.BigInteger(), nullable=False),
        sa.Column("payer_wallet_id", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("refunded_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'BUFFERED'"), nullable=False),
        sa.Column("held_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("original_release_date", sa.DateTime(timezone=True), nullable=False),
        sa.Column("release_date", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "release_hour",
            sa.DateTime(timezone=True),
            sa.Computed(
                "date_bin('1 hour', release_date, timestamptz '2000-01-01 00:00:00+00')",
                persisted=True,
            ),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(state = 'REFUNDED') = (refunded_minor = amount_minor)",
            name="hold_refunded_iff_nothing_is_left",
        ),
        sa.CheckConstraint(
            "(state IN ('RELEASED', 'REFUNDED')) = (settled_at IS NOT NULL)",
            name="hold_settled_at_iff_final",
        ),
        sa.CheckConstraint(
            "state IN ('BUFFERED', 'FROZEN', 'RELEASED', 'REFUNDED')", name="hold_state_is_known"
        ),
        sa.CheckConstraint("amount_minor BETWEEN 1 AND 1000000000000000", name="hold_amount_in_range"),
        sa.CheckConstraint(
            "held_at <= original_release_date AND original_release_date <= release_date",
            name="hold_dates_in_order",
        ),
        sa.CheckConstraint("length(job) BETWEEN 1 AND 200", name="hold_job_length"),
        sa.CheckConstraint("length(reference) BETWEEN 1 AND 200", name="hold_reference_length"),
        sa.CheckConstraint("length(title) <= 500", name="hold_title_length"),
        sa.CheckConstraint("refunded_minor BETWEEN 0 AND amount_minor", name="hold_refunded_within_amount"),
        sa.ForeignKeyConstraint(
            ["payee_wallet_id", "currency"],
            ["buffer.wallet.wallet_id", "buffer.wallet.currency"],
            name="hold_payee_wallet_fkey",
        ),
        sa.ForeignKeyConstraint(
            ["payer_wallet_id", "currency"],
            ["buffer.wallet.wallet_id", "buffer.wallet.currency"],
            name="hold_payer_wallet_fkey",
        ),
        sa.PrimaryKeyConstraint("hold_id"),
        sa.UniqueConstraint("reference", name="hold_reference_key"),
        schema="buffer",
    )
    op.create_index(
        "hold_due_idx",
        "hold",
        ["release_hour", "payee_wallet_id", "hold_id"],
        unique=False,
        schema="buffer",
        postgresql_where=sa.text("state = 'BUFFERED'"),
    )
    op.create_index("hold_job_idx", "hold", ["job"], unique=False, schema="buffer")
    op.create_table(
        "hold_freeze",
        sa.Column("freeze_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("hold_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("backjob_id", sa.BigInteger(), nullable=True),
        sa.Column("opened_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_by", sa.Text(), nullable=True),
        sa.Column("closing_reason", sa.Text(), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(kind = 'BACKJOB') = (backjob_id IS NOT NULL)",
            name="hold_freeze_has_backjob_iff_of_that_kind",
        ),
        sa.CheckConstraint("kind IN ('BACKJOB', 'ADMIN', 'RISK')", name="hold_freeze_kind_is_known"),
        sa.CheckConstraint(
            "(closed_at IS NULL) = (closed_by IS NULL) AND (closed_at IS NULL) = (closing_reason IS NULL)",
            name="hold_freeze_closed_whole_or_not_at_all",
        ),
        sa.ForeignKeyConstraint(
            ["backjob_id"], ["buffer.backjob.backjob_id"], name="hold_freeze_backjob_fkey"
        ),
        sa.ForeignKeyConstraint(["hold_id"], ["buffer.hold.hold_id"], name="hold_freeze_hold_fkey"),
        sa.PrimaryKeyConstraint("freeze_id"),
        schema="buffer",
    )
    op.create_index(
        "hold_freeze_backjob_hold_key", "hold_freeze", ["backjob_id", "hold_id"], unique=True, schema="buffer"
    )
    op.create_index("hold_freeze_hold_idx", "hold_freeze", ["hold_id"], unique=False, schema="buffer")
    op.create_index(
        "hold_freeze_open_idx",
        "hold_freeze",
        ["hold_id"],
        unique=False,
        schema="buffer",
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.execute(APPEND_ONLY)
    op.execute(REFERENCES)


def downgrade() -> None:
    op.drop_table("notification", schema="buffer")
    op.drop_table("transaction", schema="buffer")
    op.drop_table("batch", schema="buffer")
    op.drop_table("hold_freeze", schema="buffer")
    op.drop_table("backjob", schema="buffer")
    op.drop_table("hold", schema="buffer")
    op.drop_table("wallet", schema="buffer")
    op.execute("DROP FUNCTION buffer.refuse_stray_transactions()")
    op.execute("DROP FUNCTION buffer.refuse_rewriting()")
