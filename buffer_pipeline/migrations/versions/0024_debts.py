"""What was released can be taken back. What the balance does not cover is a debt, which later releases pay."""

from alembic import op

from buffer_pipeline.migrations.stray_transactions import replace_function
from buffer_pipeline.migrations.transaction_columns import columns_fit_its_type

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

# The new columns are NULL or have a constant, so no row is rewritten.
_COLUMNS = """
ALTER TABLE buffer.wallet
  ADD COLUMN debt_minor bigint NOT NULL DEFAULT 0,
  ADD CONSTRAINT wallet_debt_not_negative CHECK (debt_minor >= 0);
GRANT UPDATE (debt_minor) ON buffer.wallet TO CURRENT_USER, buffer_platform, buffer_releaser;
ALTER TABLE buffer.hold_rule
  ADD COLUMN recovery_percent numeric,
  ADD CONSTRAINT hold_rule_recovery_percent_in_range
    CHECK (recovery_percent BETWEEN 0 AND 100 AND recovery_percent = round(recovery_percent, 4));
GRANT INSERT (recovery_percent) ON buffer.hold_rule TO buffer_platform;
ALTER TABLE buffer.batch
  ADD COLUMN paid_to text,
  ADD COLUMN advancer_wallet_id bigint
    CONSTRAINT batch_advancer_wallet_fkey REFERENCES buffer.wallet (wallet_id),
  ADD CONSTRAINT batch_paid_to_iff_claw_back
    CHECK ((kind = 'CLAWBACK') = (paid_to IS NOT NULL) AND paid_to IN ('PAYER', 'BANK')),
  ADD CONSTRAINT batch_advancer_only_of_claw_back CHECK (kind = 'CLAWBACK' OR advancer_wallet_id IS NULL);
GRANT INSERT (paid_to, advancer_wallet_id) ON buffer.batch TO buffer_platform;
ALTER TABLE buffer.transaction
  ADD COLUMN from_balance_after_minor bigint,
  ADD COLUMN debt_id bigint;
GRANT INSERT (from_balance_after_minor, debt_id) ON buffer.transaction TO buffer_platform, buffer_releaser;
ALTER TABLE buffer.notification ADD COLUMN clawback_id bigint;
GRANT INSERT (clawback_id) ON buffer.notification TO buffer_platform;
GRANT INSERT (clawback_id, left_minor) ON buffer.notification TO buffer_releaser;
"""

# What a claw-back took, or wanted to take, of each hold. Its id is that of its batch: a foreign key would lock the
# batch, which not even the owner may.
_SHARES = """
CREATE TABLE buffer.clawback_share (
  clawback_id bigint NOT NULL,
  hold_id bigint NOT NULL CONSTRAINT clawback_share_hold_fkey REFERENCES buffer.hold (hold_id),
  amount_minor bigint NOT NULL,
  CONSTRAINT clawback_share_pkey PRIMARY KEY (hold_id, clawback_id),
  CONSTRAINT clawback_share_amount_in_range CHECK (amount_minor BETWEEN 1 AND 1000000000000000)
);
CREATE INDEX clawback_share_clawback_idx ON buffer.clawback_share (clawback_id);
CREATE TRIGGER clawback_share_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON buffer.clawback_share
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
REVOKE ALL ON buffer.clawback_share FROM PUBLIC;
REVOKE UPDATE, DELETE, TRUNCATE ON buffer.clawback_share FROM CURRENT_USER;
GRANT SELECT, INSERT ON buffer.clawback_share TO buffer_platform;
GRANT SELECT ON buffer.clawback_share TO buffer_releaser, buffer_reader;
"""

_DEBTS = """
CREATE TABLE buffer.debt (
  debt_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT debt_pkey PRIMARY KEY,
  clawback_id bigint NOT NULL,
  hold_id bigint NOT NULL,
  wallet_id bigint NOT NULL,
  creditor_wallet_id bigint,
  currency text NOT NULL,
  amount_minor bigint NOT NULL,
  outstanding_minor bigint NOT NULL,
  opened_at timestamptz NOT NULL,
  closed_at timestamptz,
  forgiven_id bigint,
  CONSTRAINT debt_clawback_hold_key UNIQUE (clawback_id, hold_id),
  CONSTRAINT debt_wallet_fkey FOREIGN KEY (wallet_id, currency) REFERENCES buffer.wallet (wallet_id, currency),
  CONSTRAINT debt_creditor_wallet_fkey
    FOREIGN KEY (creditor_wallet_id, currency) REFERENCES buffer.wallet (wallet_id, currency),
  CONSTRAINT debt_of_a_hold_fkey
    FOREIGN KEY (hold_id, wallet_id, currency) REFERENCES buffer.hold (hold_id, payee_wallet_id, currency),
  CONSTRAINT debt_is_to_somebody_else CHECK (wallet_id <> creditor_wallet_id),
  CONSTRAINT debt_amount_in_range CHECK (amount_minor BETWEEN 1 AND 1000000000000000),
  CONSTRAINT debt_outstanding_in_range CHECK (outstanding_minor BETWEEN 0 AND amount_minor),
  CONSTRAINT debt_closed_iff_nothing_is_outstanding CHECK ((outstanding_minor = 0) = (closed_at IS NOT NULL)),
  CONSTRAINT debt_closed_after_opening CHECK (opened_at <= closed_at),
  CONSTRAINT debt_forgiven_only_if_closed CHECK (closed_at IS NOT NULL OR forgiven_id IS NULL)
);
-- The open debts of a wallet, the oldest first.
CREATE INDEX debt_open_idx ON buffer.debt (wallet_id, opened_at, debt_id) WHERE outstanding_minor > 0;
CREATE INDEX debt_wallet_idx ON buffer.debt (wallet_id);
CREATE INDEX debt_hold_idx ON buffer.debt (hold_id);
CREATE TRIGGER debt_only_goes_down BEFORE UPDATE ON buffer.debt
FOR EACH ROW WHEN (new.outstanding_minor >= old.outstanding_minor) EXECUTE FUNCTION buffer.refuse_rewriting();
CREATE TRIGGER debt_is_kept BEFORE DELETE OR TRUNCATE ON buffer.debt
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
ALTER TABLE buffer.debt ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON buffer.debt FOR SELECT USING (true);
CREATE POLICY platform_adds ON buffer.debt FOR INSERT TO buffer_platform
WITH CHECK (opened_at <= clock_timestamp() + interval '1 day');
CREATE POLICY writers_pay ON buffer.debt FOR UPDATE TO buffer_platform, buffer_releaser
USING (true) WITH CHECK (closed_at IS NULL OR closed_at <= clock_timestamp() + interval '1 day');
REVOKE ALL ON buffer.debt FROM PUBLIC;
REVOKE UPDATE, DELETE, TRUNCATE ON buffer.debt FROM CURRENT_USER;
GRANT UPDATE (outstanding_minor, closed_at, forgiven_id) ON buffer.debt TO CURRENT_USER, buffer_platform;
GRANT UPDATE (outstanding_minor, closed_at) ON buffer.debt TO buffer_releaser;
GRANT SELECT, INSERT (
  clawback_id, hold_id, wallet_id, creditor_wallet_id, currency, amount_minor, outstanding_minor, opened_at
) ON buffer.debt TO buffer_platform;
GRANT SELECT ON buffer.debt TO buffer_releaser, buffer_reader;
CREATE UNIQUE INDEX transaction_debt_line_key ON buffer.transaction (debt_id, type, batch_id)
WHERE debt_id IS NOT NULL;
"""

# One CHECK has all of them: what a release writes is told apart once.
_OLDER_OF_TRANSACTIONS = {
    "transaction_type_names_its_accounts": "(type, from_account, to_account) IN ("
    "('PENDING_EARNING', 'ESCROW', 'PENDING_EARNINGS'),"
    " ('EARNING', 'PENDING_EARNINGS', 'BALANCE'),"
    " ('EARNING_PART', 'PENDING_EARNINGS', 'BALANCE'),"
    " ('REFUND', 'PENDING_EARNINGS', 'BALANCE'),"
    " ('DEPOSIT', 'EXTERNAL', 'BALANCE'),"
    " ('WITHDRAWAL', 'BALANCE', 'EXTERNAL'),"
    " ('OPENING_BALANCE', 'OPENING', 'BALANCE'))",
    "transaction_from_wallet_iff_its_account": (
        "(from_account IN ('BALANCE', 'PENDING_EARNINGS')) = (from_wallet_id IS NOT NULL)"
    ),
    "transaction_to_wallet_iff_its_account": (
        "(to_account IN ('BALANCE', 'PENDING_EARNINGS')) = (to_wallet_id IS NOT NULL)"
    ),
    "transaction_earning_stays_at_its_wallet": (
        "type NOT IN ('EARNING', 'EARNING_PART') OR from_wallet_id = to_wallet_id"
    ),
    "transaction_balance_after_iff_balance_moves": (
        "('BALANCE' IN (from_account, to_account)) = (balance_after_minor IS NOT NULL)"
        " AND balance_after_minor >= 0"
    ),
    "transaction_hold_iff_of_a_hold": (
        "(type IN ('PENDING_EARNING', 'EARNING', 'EARNING_PART', 'REFUND')) = (hold_id IS NOT NULL)"
    ),
    "transaction_batch_iff_earning_or_refund_by_admin": (
        "(batch_id IS NOT NULL)"
        " = (type IN ('EARNING', 'EARNING_PART') OR (type = 'REFUND' AND backjob_id IS NULL))"
    ),
    "transaction_backjob_only_of_refund": "type = 'REFUND' OR backjob_id IS NULL",
    "transaction_reference_iff_named_by_caller": (
        "(reference IS NOT NULL) = (type IN ('DEPOSIT', 'WITHDRAWAL', 'OPENING_BALANCE'))"
        " OR (type = 'REFUND' AND backjob_id IS NULL)"
    ),
    "transaction_release_date_iff_it_leaves_the_buffer": (
        "(type IN ('EARNING', 'EARNING_PART', 'REFUND')) = (release_date IS NOT NULL)"
    ),
}

# Table, name, name before, condition, condition before. An empty name or condition: there is none.
_CHECKS = (
    ("transaction", "transaction_columns_fit_its_type", "", columns_fit_its_type(payouts=False), ""),
    *(("transaction", "", name, "", condition) for name, condition in _OLDER_OF_TRANSACTIONS.items()),
    (
        "batch",
        "batch_kind_is_known",
        "batch_kind_is_known",
        "kind IN ('DUE', 'EARLY', 'REFUND', 'CLAWBACK', 'RECOVERY', 'FORGIVEN')",
        "kind IN ('DUE', 'EARLY', 'REFUND')",
    ),
    # A claw-back always has both. Recovering and forgiving are safe to repeat without a reference.
    (
        "batch",
        "batch_reference_only_of_a_decision",
        "batch_reference_only_of_early",
        "kind = 'EARLY' OR ((kind = 'CLAWBACK') = (named_hold_id IS NOT NULL)"
        " AND (kind IN ('RECOVERY', 'FORGIVEN') OR (kind = 'CLAWBACK') = (reference IS NOT NULL)))",
        "kind = 'EARLY' OR (reference IS NULL AND named_hold_id IS NULL)",
    ),
    (
        "notification",
        "notification_type_is_known",
        "notification_type_is_known",
        "type IN ('PAYMENT_PENDING', 'PAYMENT_RELEASED', 'PAYMENT_FROZEN', 'PAYMENT_RESUMED',"
        " 'PAYMENT_RESCHEDULED', 'PAYMENT_REFUNDED', 'BACKJOB_RECEIVED', 'BACKJOB_REJECTED',"
        " 'BACKJOB_APPROVED', 'EARNING_CLAWED_BACK', 'DEBT_RECOVERED', 'DEBT_FORGIVEN')",
        "type IN ('PAYMENT_PENDING', 'PAYMENT_RELEASED', 'PAYMENT_FROZEN', 'PAYMENT_RESUMED',"
        " 'PAYMENT_RESCHEDULED', 'PAYMENT_REFUNDED', 'BACKJOB_RECEIVED', 'BACKJOB_REJECTED',"
        " 'BACKJOB_APPROVED')",
    ),
    (
        "notification",
        "notification_of_a_payment_names_its_hold",
        "notification_of_a_payment_names_its_hold",
        "(type LIKE 'PAYMENT\\_%' OR type IN ('EARNING_CLAWED_BACK', 'DEBT_RECOVERED', 'DEBT_FORGIVEN'))"
        " = (hold_id IS NOT NULL) AND (hold_id IS NULL) = (amount_minor IS NULL) AND (amount_minor IS NULL) = (currency IS NULL)",
        "(type LIKE 'PAYMENT\\_%') = (hold_id IS NOT NULL) AND (hold_id IS NULL) = (amount_minor IS NULL)"
        " AND (amount_minor IS NULL) = (currency IS NULL)",
    ),
    (
        "notification",
        "notification_left_only_of_a_part_or_a_debt",
        "notification_left_only_of_a_part",
        "left_minor IS NULL OR (left_minor > 0"
        " AND (clawback_id IS NOT NULL OR (type = 'PAYMENT_RELEASED' AND release_date IS NOT NULL)))",
        "left_minor IS NULL OR (type = 'PAYMENT_RELEASED' AND left_minor > 0 AND release_date IS NOT NULL)",
    ),
    (
        "notification",
        "notification_later_columns_fit_its_type",
        "",
        "CASE WHEN type LIKE 'PAYMENT\\_%' THEN clawback_id IS NULL"
        " ELSE (clawback_id IS NOT NULL) = (type IN ('EARNING_CLAWED_BACK', 'DEBT_RECOVERED', 'DEBT_FORGIVEN')) END",
        "",
    ),
)


def upgrade() -> None:
    op.execute(_COLUMNS)
    op.execute(_SHARES)
    op.execute(_DEBTS)
    _replace_checks([(table, old, new, condition) for table, new, old, condition, _ in _CHECKS])
    replace_function(refunds_of_earnings=True, parts=True, debts=True)


def downgrade() -> None:
    # Refuses where something was clawed back: the older constraints know no such line.
    _replace_checks([(table, new, old, condition) for table, new, old, _, condition in _CHECKS])
    replace_function(refunds_of_earnings=True, parts=True)
    # A privilege on a column outlives the column.
    op.execute(
        "DROP INDEX buffer.transaction_debt_line_key;"
        " DROP TABLE buffer.debt, buffer.clawback_share;"
        " REVOKE INSERT (clawback_id) ON buffer.notification FROM buffer_platform;"
        " REVOKE INSERT (clawback_id, left_minor) ON buffer.notification FROM buffer_releaser;"
        " ALTER TABLE buffer.notification DROP COLUMN clawback_id;"
        " REVOKE INSERT (from_balance_after_minor, debt_id) ON buffer.transaction"
        " FROM buffer_platform, buffer_releaser;"
        " ALTER TABLE buffer.transaction DROP COLUMN from_balance_after_minor, DROP COLUMN debt_id;"
        " REVOKE INSERT (paid_to, advancer_wallet_id) ON buffer.batch FROM buffer_platform;"
        " ALTER TABLE buffer.batch DROP COLUMN paid_to, DROP COLUMN advancer_wallet_id;"
        " REVOKE INSERT (recovery_percent) ON buffer.hold_rule FROM buffer_platform;"
        " ALTER TABLE buffer.hold_rule DROP COLUMN recovery_percent;"
        " REVOKE UPDATE (debt_minor) ON buffer.wallet FROM buffer_platform, buffer_releaser;"
        " ALTER TABLE buffer.wallet DROP COLUMN debt_minor"
    )


def _replace_checks(checks: list[tuple[str, str, str, str]]) -> None:
    """Replace CHECKs (table, name, new name, condition): each table is read once for all of its own."""
    for table in dict.fromkeys(table for table, *_ in checks):
        changes = []
        for of_table, name, new_name, condition in checks:
            if of_table == table and name:
                changes.append(f"DROP CONSTRAINT {name}")
            if of_table == table and new_name:
                changes.append(f"ADD CONSTRAINT {new_name} CHECK ({condition})")
        op.execute(f"ALTER TABLE buffer.{table} {', '.join(changes)}")
