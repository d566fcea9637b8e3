"""A part of a hold can be released early, and an early release can have an idempotency key."""

from alembic import op

from buffer_pipeline.migrations.hold_status import count_parts_in_hold_status, shorten_hold_status
from buffer_pipeline.migrations.stray_transactions import replace_function

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_COLUMNS_OF_HOLD = ("metadata", "rule_id", "kind", "earning_id", "earning_minor")

# The new columns are NULL or have a constant, so no row is rewritten.
_COLUMNS = """
ALTER TABLE buffer.batch
  ADD COLUMN reference text,
  ADD COLUMN named_hold_id bigint CONSTRAINT batch_named_hold_fkey REFERENCES buffer.hold (hold_id),
  ADD CONSTRAINT batch_reference_only_of_early
    CHECK (kind = 'EARLY' OR (reference IS NULL AND named_hold_id IS NULL)),
  ADD CONSTRAINT batch_reference_length CHECK (length(reference) BETWEEN 1 AND 200);
CREATE UNIQUE INDEX batch_reference_key ON buffer.batch (reference) WHERE reference IS NOT NULL;
GRANT INSERT (reference, named_hold_id) ON buffer.batch TO buffer_platform, buffer_releaser;
ALTER TABLE buffer.notification
  ADD COLUMN left_minor bigint,
  ADD CONSTRAINT notification_left_only_of_a_part CHECK (
    left_minor IS NULL OR (type = 'PAYMENT_RELEASED' AND left_minor > 0 AND release_date IS NOT NULL)
  );
GRANT INSERT (left_minor) ON buffer.notification TO buffer_platform;
ALTER TABLE buffer.hourly_release_count ADD COLUMN parts_released bigint NOT NULL DEFAULT 0;
ALTER TABLE buffer.hourly_release_count ALTER COLUMN parts_released DROP DEFAULT;
"""

# Table, name, name before, condition, condition before.
_CHECKS = (
    (
        "transaction",
        "transaction_type_names_its_accounts",
        "transaction_type_names_its_accounts",
        "(type, from_account, to_account) IN ("
        "('PENDING_EARNING', 'ESCROW', 'PENDING_EARNINGS'),"
        " ('EARNING', 'PENDING_EARNINGS', 'BALANCE'),"
        " ('EARNING_PART', 'PENDING_EARNINGS', 'BALANCE'),"
        " ('REFUND', 'PENDING_EARNINGS', 'BALANCE'),"
        " ('DEPOSIT', 'EXTERNAL', 'BALANCE'),"
        " ('WITHDRAWAL', 'BALANCE', 'EXTERNAL'),"
        " ('OPENING_BALANCE', 'OPENING', 'BALANCE'))",
        "(type, from_account, to_account) IN ("
        "('PENDING_EARNING', 'ESCROW', 'PENDING_EARNINGS'),"
        " ('EARNING', 'PENDING_EARNINGS', 'BALANCE'),"
        " ('REFUND', 'PENDING_EARNINGS', 'BALANCE'),"
        " ('DEPOSIT', 'EXTERNAL', 'BALANCE'),"
        " ('WITHDRAWAL', 'BALANCE', 'EXTERNAL'),"
        " ('OPENING_BALANCE', 'OPENING', 'BALANCE'))",
    ),
    (
        "transaction",
        "transaction_earning_stays_at_its_wallet",
        "transaction_earning_stays_at_its_wallet",
        "type NOT IN ('EARNING', 'EARNING_PART') OR from_wallet_id = to_wallet_id",
        "type <> 'EARNING' OR from_wallet_id = to_wallet_id",
    ),
    (
        "transaction",
        "transaction_hold_iff_of_a_hold",
        "transaction_hold_iff_of_a_hold",
        "(type IN ('PENDING_EARNING', 'EARNING', 'EARNING_PART', 'REFUND')) = (hold_id IS NOT NULL)",
        "(type IN ('PENDING_EARNING', 'EARNING', 'REFUND')) = (hold_id IS NOT NULL)",
    ),
    (
        "transaction",
        "transaction_batch_iff_earning_or_refund_by_admin",
        "transaction_batch_iff_earning_or_refund_by_admin",
        "(batch_id IS NOT NULL)"
        " = (type IN ('EARNING', 'EARNING_PART') OR (type = 'REFUND' AND backjob_id IS NULL))",
        "(batch_id IS NOT NULL) = (type = 'EARNING' OR (type = 'REFUND' AND backjob_id IS NULL))",
    ),
    (
        "transaction",
        "transaction_release_date_iff_it_leaves_the_buffer",
        "transaction_release_date_iff_it_settles",
        "(type IN ('EARNING', 'EARNING_PART', 'REFUND')) = (release_date IS NOT NULL)",
        "(type IN ('EARNING', 'REFUND')) = (release_date IS NOT NULL)",
    ),
    (
        "hourly_release_count",
        "hourly_release_count_amount_iff_counted",
        "hourly_release_count_amount_iff_counted",
        "(holds_added = 0) = (added_minor = 0) AND (holds_released + parts_released = 0) = (released_minor = 0)"
        " AND (refunds = 0) = (refunded_minor = 0)",
        "(holds_added = 0) = (added_minor = 0) AND (holds_released = 0) = (released_minor = 0)"
        " AND (refunds = 0) = (refunded_minor = 0)",
    ),
    (
        "hourly_release_count",
        "hourly_release_count_payees_iff_released",
        "hourly_release_count_payees_iff_released",
        "(holds_released + parts_released = 0) = (payees = 0) AND payees <= holds_released + parts_released",
        "(holds_released = 0) = (payees = 0) AND payees <= holds_released",
    ),
    (
        "hourly_release_count",
        "hourly_release_count_not_negative",
        "hourly_release_count_not_negative",
        "least(holds_added, holds_released_early, holds_released - holds_released_early, refunds,"
        " freezes_opened, freezes_closed, parts_released) >= 0",
        "least(holds_added, holds_released_early, holds_released - holds_released_early, refunds,"
        " freezes_opened, freezes_closed) >= 0",
    ),
    # An early release of a part has what it left.
    (
        "batch",
        "batch_left_iff_of_an_earning_or_early",
        "batch_left_iff_of_an_earning",
        "kind = 'EARLY' OR (earning_id IS NOT NULL) = (left_minor IS NOT NULL)",
        "(earning_id IS NOT NULL) = (left_minor IS NOT NULL)",
    ),
    (
        "batch",
        "batch_left_not_negative",
        "batch_left_not_negative",
        "left_minor >= 0 AND (kind <> 'EARLY' OR left_minor > 0)",
        "left_minor >= 0",
    ),
)


def upgrade() -> None:
    op.execute(_COLUMNS)
    replace_function(refunds_of_earnings=True, parts=True)
    _replace_checks([(table, old, new, condition) for table, new, old, condition, _ in _CHECKS])
    count_parts_in_hold_status(*_COLUMNS_OF_HOLD)


def downgrade() -> None:
    # Refuses where a part was released: the older constraints know no such line.
    _replace_checks([(table, new, old, condition) for table, new, old, _, condition in _CHECKS])
    replace_function(refunds_of_earnings=True, parts=False)
    shorten_hold_status(*_COLUMNS_OF_HOLD)
    # A privilege on a column outlives the column.
    op.execute(
        "REVOKE INSERT (reference, named_hold_id) ON buffer.batch FROM buffer_platform, buffer_releaser;"
        " REVOKE INSERT (left_minor) ON buffer.notification FROM buffer_platform;"
        " ALTER TABLE buffer.batch DROP COLUMN reference, DROP COLUMN named_hold_id;"
        " ALTER TABLE buffer.notification DROP COLUMN left_minor;"
        " ALTER TABLE buffer.hourly_release_count DROP COLUMN parts_released"
    )


def _replace_checks(checks: list[tuple[str, str, str, str]]) -> None:
    """Replace CHECKs (table, name, new name, condition): each table is read once for all of its own."""
    for table in dict.fromkeys(table for table, *_ in checks):
        changes = [
            f"DROP CONSTRAINT {name}, ADD CONSTRAINT {new_name} CHECK ({condition})"
            for of_table, name, new_name, condition in checks
            if of_table == table
        ]
        op.execute(f"ALTER TABLE buffer.{table} {', '.join(changes)}")
