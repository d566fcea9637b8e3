"""Payouts take money out of balances, in batches, to destinations whose accounts only `buffer_payouts` reads."""

from alembic import op

from buffer_pipeline.migrations.payout_alerts import ALERTS, ALERTS_BEFORE
from buffer_pipeline.migrations.payout_privileges import GRANTS, POLICIES
from buffer_pipeline.migrations.payout_tables import BATCHES, DESTINATIONS, IDS, PAYOUTS
from buffer_pipeline.migrations.roles import require_roles
from buffer_pipeline.migrations.stray_transactions import replace_function
from buffer_pipeline.migrations.transaction_columns import columns_fit_its_type

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

# The new columns are NULL, so no row is rewritten.
_COLUMNS = """
ALTER TABLE buffer.transaction
  ADD COLUMN payout_id bigint;
-- One index for debts and payouts: each partial index costs something for every row.
DROP INDEX buffer.transaction_debt_line_key;
CREATE UNIQUE INDEX transaction_debt_or_payout_line_key
ON buffer.transaction (debt_id, payout_id, type, batch_id) NULLS NOT DISTINCT
WHERE debt_id IS NOT NULL OR payout_id IS NOT NULL;
ALTER TABLE buffer.notification
  ADD COLUMN payout_id bigint;
ALTER TABLE buffer.inbox_message ADD COLUMN payout_id bigint;
"""

# What is about a payment, as most is, is told apart first.
_LATER_COLUMNS_OF_NOTIFICATIONS = (
    "CASE WHEN type LIKE 'PAYMENT\\_%' THEN clawback_id IS NULL{no_payout}"
    " ELSE (clawback_id IS NOT NULL) = (type IN ('EARNING_CLAWED_BACK', 'DEBT_RECOVERED', 'DEBT_FORGIVEN'))"
    "{payout} END"
)
_PAYOUT_NOTIFICATION = " AND (type LIKE 'PAYOUT\\_%') = (payout_id IS NOT NULL)"

_TYPES = (
    "'PAYMENT_PENDING', 'PAYMENT_RELEASED', 'PAYMENT_FROZEN', 'PAYMENT_RESUMED', 'PAYMENT_RESCHEDULED',"
    " 'PAYMENT_REFUNDED', 'BACKJOB_RECEIVED', 'BACKJOB_REJECTED', 'BACKJOB_APPROVED', 'EARNING_CLAWED_BACK',"
    " 'DEBT_RECOVERED', 'DEBT_FORGIVEN'"
)
_TYPES_OF_PAYOUTS = ", 'PAYOUT_SENT', 'PAYOUT_PAID', 'PAYOUT_RETURNED'"


def upgrade() -> None:
    require_roles()
    op.execute(DESTINATIONS)
    op.execute(IDS)
    op.execute(BATCHES)
    op.execute(PAYOUTS)
    op.execute(_COLUMNS)
    op.execute(ALERTS)
    _replace_checks(payouts=True)
    replace_function(refunds_of_earnings=True, parts=True, debts=True, payouts=True)
    op.execute(GRANTS)
    op.execute(POLICIES)


def downgrade() -> None:
    # Refuses where there was a payout: the older constraints know no such line.
    _replace_checks(payouts=False)
    replace_function(refunds_of_earnings=True, parts=True, debts=True)
    # A privilege on a column outlives the column.
    op.execute(ALERTS_BEFORE)
    op.execute(
        "REVOKE INSERT (payout_id) ON buffer.transaction FROM buffer_platform;"
        " REVOKE INSERT (payout_id) ON buffer.inbox_message FROM buffer_releaser;"
        " REVOKE ALL ON ALL FUNCTIONS IN SCHEMA buffer FROM buffer_payouts;"
        " REVOKE ALL ON ALL TABLES IN SCHEMA buffer FROM buffer_payouts;"
        " REVOKE ALL ON SCHEMA buffer FROM buffer_payouts;"
        " ALTER TABLE buffer.transaction DROP COLUMN payout_id;"
        " CREATE UNIQUE INDEX transaction_debt_line_key ON buffer.transaction (debt_id, type, batch_id)"
        " WHERE debt_id IS NOT NULL;"
        " ALTER TABLE buffer.notification DROP COLUMN payout_id;"
        " ALTER TABLE buffer.inbox_message DROP COLUMN payout_id;"
        " DROP TABLE buffer.payout, buffer.payout_status_file, buffer.payout_export, buffer.payout_batch,"
        " buffer.payout_destination, buffer.payout_schedule, buffer.payout_ids"
    )


def _replace_checks(*, payouts: bool) -> None:
    """Know payouts or not. Each table is read once for all of its CHECKs."""
    op.execute(
        "ALTER TABLE buffer.transaction DROP CONSTRAINT transaction_columns_fit_its_type,"
        f" ADD CONSTRAINT transaction_columns_fit_its_type CHECK ({columns_fit_its_type(payouts=payouts)})"
    )
    no_payout = " AND payout_id IS NULL" if payouts else ""
    types = _TYPES + (_TYPES_OF_PAYOUTS if payouts else "")
    columns = _LATER_COLUMNS_OF_NOTIFICATIONS.format(
        no_payout=no_payout, payout=_PAYOUT_NOTIFICATION if payouts else ""
    )
    op.execute(
        "ALTER TABLE buffer.notification"
        " DROP CONSTRAINT notification_type_is_known,"
        f" ADD CONSTRAINT notification_type_is_known CHECK (type IN ({types})),"
        " DROP CONSTRAINT notification_of_a_payment_names_its_hold,"
        " ADD CONSTRAINT notification_of_a_payment_names_its_hold CHECK ("
        " (type LIKE 'PAYMENT\\_%' OR type IN ('EARNING_CLAWED_BACK', 'DEBT_RECOVERED', 'DEBT_FORGIVEN'))"
        " = (hold_id IS NOT NULL)"
        f" AND (hold_id IS NULL{no_payout}) = (amount_minor IS NULL)"
        " AND (amount_minor IS NULL) = (currency IS NULL)),"
        " DROP CONSTRAINT notification_later_columns_fit_its_type,"
        f" ADD CONSTRAINT notification_later_columns_fit_its_type CHECK ({columns})"
    )
