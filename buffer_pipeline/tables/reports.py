"""Counted hours, and the alerts that were sent."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

from buffer_pipeline.tables.schema import metadata, time_column

# The hours that were counted; their figures are in `hourly_release_count`. An hour in which nothing happened
# has a row only here.
counted_hour = Table(
    "counted_hour",
    metadata,
    Column("hour", DateTime(timezone=True), primary_key=True),
    Column("counted_by", Text, nullable=False),
    time_column("counted_at"),
    CheckConstraint(
        "hour = date_bin('1 hour', hour, timestamptz '2000-01-01 00:00:00+00')",
        name="counted_hour_is_whole",
    ),
    CheckConstraint("counted_at >= hour + interval '1 hour'", name="counted_hour_was_over"),
)

# A report. Counting an hour again deletes its rows and writes them anew. No money depends on it.
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
    Column("released_minor", BigInteger, nullable=False, doc="what was released, parts included"),
    Column("payees", BigInteger, nullable=False, doc="different wallets that were released to"),
    Column("lateness_median_seconds", Double, nullable=True, doc="released_at - release_date, on schedule"),
    Column("lateness_max_seconds", Double, nullable=True, doc="released_at - release_date, on schedule"),
    Column("refunds", BigInteger, nullable=False, doc="refunds; a payment may be refunded in parts"),
    Column("refunded_minor", BigInteger, nullable=False, doc="what was refunded"),
    Column("freezes_opened", BigInteger, nullable=False, doc="backjob, admin and risk freezes"),
    Column("freezes_closed", BigInteger, nullable=False, doc="backjob, admin and risk freezes"),
    Column("parts_released", BigInteger, nullable=False, doc="parts of payments that were released early"),
    Column("released_fee_minor", BigInteger, nullable=False, doc="the fees in what was released"),
    Column("released_tax_minor", BigInteger, nullable=False, doc="the taxes in what was released"),
    Column("released_reserve_minor", BigInteger, nullable=False, doc="the reserves in what was released"),
    PrimaryKeyConstraint("hour", "currency"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="hourly_release_count_currency_is_iso_4217"),
    CheckConstraint(
        "(holds_added = 0) = (added_minor = 0)"
        " AND (holds_released + parts_released = 0) = (released_minor = 0)"
        " AND (refunds = 0) = (refunded_minor = 0)",
        name="hourly_release_count_amount_iff_counted",
    ),
    CheckConstraint(
        "(holds_released + parts_released = 0) = (payees = 0) AND payees <= holds_released + parts_released",
        name="hourly_release_count_payees_iff_released",
    ),
    CheckConstraint(
        "(holds_released = holds_released_early) = (lateness_max_seconds IS NULL)"
        " AND (lateness_max_seconds IS NULL) = (lateness_median_seconds IS NULL)",
        name="hourly_release_count_lateness_iff_released_on_schedule",
    ),
    CheckConstraint(
        "least(holds_added, holds_released_early, holds_released - holds_released_early, refunds,"
        " freezes_opened, freezes_closed, parts_released) >= 0",
        name="hourly_release_count_not_negative",
    ),
    CheckConstraint(
        "least(released_fee_minor, released_tax_minor, released_reserve_minor) >= 0"
        " AND released_fee_minor + released_tax_minor + released_reserve_minor <= released_minor",
        name="hourly_release_count_shares_in_released",
    ),
)

# The alerts that operators got, one row per alert, with the holds, batches of payouts or payouts that it
# named. Alerts of failed runs are not here, because they are sent even if the books cannot be reached.
alert = Table(
    "alert",
    metadata,
    Column("alert_id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    time_column("period"),
    Column("hold_ids", ARRAY(BigInteger), nullable=False),
    time_column("sent_at"),
    Column("payout_batch_ids", ARRAY(BigInteger), nullable=False, server_default=text("'{}'")),
    # Payouts that no batch takes.
    Column("payout_ids", ARRAY(BigInteger), nullable=False, server_default=text("'{}'")),
    CheckConstraint(
        "kind IN ('STUCK_PAYMENT', 'OVERDUE_RELEASE', 'STUCK_PAYOUT')", name="alert_kind_is_known"
    ),
    CheckConstraint(
        "(kind = 'STUCK_PAYMENT') = (cardinality(hold_ids) > 0)",
        name="alert_has_holds_iff_of_stuck_payments",
    ),
    CheckConstraint(
        "(kind = 'STUCK_PAYOUT') = (cardinality(payout_batch_ids) + cardinality(payout_ids) > 0)",
        name="alert_has_payouts_iff_of_stuck_payouts",
    ),
)
Index("alert_period_idx", alert.c.kind, alert.c.period)
