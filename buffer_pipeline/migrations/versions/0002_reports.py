"""What the hours counted, which alerts were sent, and the mark of an hour that is being written."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# A transaction that writes into an hour holds a shared advisory lock on it until it ends, so that a
# count can see that the hour is not complete. Nobody ever takes it exclusively: no writer waits.
# An earlier hour of the same transaction stands for the later ones, so that a long history that is
# written at once in its order takes one lock and not one an hour.
_HOURS = """
CREATE FUNCTION buffer.enter_hour(moment timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  entering integer := floor(extract(epoch FROM moment) / 3600);
  entered integer := nullif(current_setting('buffer.entered_hour', true), '');
BEGIN
  IF entered IS NULL OR entering < entered THEN
    PERFORM pg_advisory_xact_lock_shared(hashtext('buffer.hour'), entering);
    -- Until the end of the transaction, or of the savepoint, as the lock itself.
    PERFORM set_config('buffer.entered_hour', entering::text, true);
  END IF;
END
$$;
CREATE FUNCTION buffer.enter_hour_of_transactions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM buffer.enter_hour(min(recorded_at)) FROM written HAVING count(*) > 0;
  RETURN NULL;
END
$$;
CREATE FUNCTION buffer.enter_hour_of_freezes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM buffer.enter_hour(min(coalesce(closed_at, opened_at))) FROM written HAVING count(*) > 0;
  RETURN NULL;
END
$$;
CREATE TRIGGER transaction_enters_its_hour AFTER INSERT ON buffer.transaction
REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION buffer.enter_hour_of_transactions();
CREATE TRIGGER hold_freeze_enters_its_hour AFTER INSERT ON buffer.hold_freeze
REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION buffer.enter_hour_of_freezes();
CREATE TRIGGER hold_freeze_enters_its_closing_hour AFTER UPDATE ON buffer.hold_freeze
REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION buffer.enter_hour_of_freezes();
"""


def upgrade() -> None:
    op.create_table(
        "counted_hour",
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("counted_by", sa.Text(), nullable=False),
        sa.Column("counted_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "hour = date_bin('1 hour', hour, timestamptz '2000-01-01 00:00:00+00')",
            name="counted_hour_is_whole",
        ),
        sa.CheckConstraint("counted_at >= hour + interval '1 hour'", name="counted_hour_was_over"),
        sa.PrimaryKeyConstraint("hour"),
        schema="buffer",
    )
    op.create_table(
        "hourly_release_count",
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("holds_added", sa.BigInteger(), nullable=False),
        sa.Column("added_minor", sa.BigInteger(), nullable=False),
        sa.Column("holds_released", sa.BigInteger(), nullable=False),
        sa.Column("holds_released_early", sa.BigInteger(), nullable=False),
        sa.Column("released_minor", sa.BigInteger(), nullable=False),
        sa.Column("payees", sa.BigInteger(), nullable=False),
        sa.Column("lateness_median_seconds", sa.Double(), nullable=True),
        sa.Column("lateness_max_seconds", sa.Double(), nullable=True),
        sa.Column("refunds", sa.BigInteger(), nullable=False),
        sa.Column("refunded_minor", sa.BigInteger(), nullable=False),
        sa.Column("freezes_opened", sa.BigInteger(), nullable=False),
        sa.Column("freezes_closed", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="hourly_release_count_currency_is_iso_4217"),
        sa.CheckConstraint(
            "(holds_added = 0) = (added_minor = 0) AND (holds_released = 0) = (released_minor = 0)"
            " AND (refunds = 0) = (refunded_minor = 0)",
            name="hourly_release_count_amount_iff_counted",
        ),
        sa.CheckConstraint(
            "(holds_released = 0) = (payees = 0) AND payees <= holds_released",
            name="hourly_release_count_payees_iff_released",
        ),
        sa.CheckConstraint(
            "(holds_released = holds_released_early) = (lateness_max_seconds IS NULL)"
            " AND (lateness_max_seconds IS NULL) = (lateness_median_seconds IS NULL)",
            name="hourly_release_count_lateness_iff_released_on_schedule",
        ),
        sa.CheckConstraint(
            "least(holds_added, holds_released_early, holds_released - holds_released_early, refunds,"
            " freezes_opened, freezes_closed) >= 0",
            name="hourly_release_count_not_negative",
        ),
        sa.ForeignKeyConstraint(
            ["hour"], ["buffer.counted_hour.hour"], name="hourly_release_count_hour_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("hour", "currency"),
        schema="buffer",
    )
    op.create_table(
        "alert",
        sa.Column("alert_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("period", sa.DateTime(timezone=True), nullable=False),
        sa.Column("hold_ids", sa.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('STUCK_PAYMENT', 'OVERDUE_RELEASE')", name="alert_kind_is_known"),
        sa.CheckConstraint(
            "(kind = 'STUCK_PAYMENT') = (cardinality(hold_ids) > 0)",
            name="alert_has_holds_iff_of_stuck_payments",
        ),
        sa.PrimaryKeyConstraint("alert_id"),
        schema="buffer",
    )
    op.create_index("alert_period_idx", "alert", ["kind", "period"], schema="buffer")
    op.create_index(
        "hold_freeze_times_brin",
        "hold_freeze",
        ["opened_at", "closed_at"],
        schema="buffer",
        postgresql_using="brin",
    )
    op.execute(_HOURS)


def downgrade() -> None:
    op.drop_index("hold_freeze_times_brin", "hold_freeze", schema="buffer")
    op.execute("DROP TRIGGER transaction_enters_its_hour ON buffer.transaction")
    op.execute("DROP TRIGGER hold_freeze_enters_its_hour ON buffer.hold_freeze")
    op.execute("DROP TRIGGER hold_freeze_enters_its_closing_hour ON buffer.hold_freeze")
    op.execute("DROP FUNCTION buffer.enter_hour_of_freezes()")
    op.execute("DROP FUNCTION buffer.enter_hour_of_transactions()")
    op.execute("DROP FUNCTION buffer.enter_hour(timestamptz)")
    op.drop_table("alert", schema="buffer")
    op.drop_table("hourly_release_count", schema="buffer")
    op.drop_table("counted_hour", schema="buffer")
