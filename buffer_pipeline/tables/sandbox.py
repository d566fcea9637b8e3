"""The clock of a sandbox: books whose time moves only when told. Real books have no row here."""

from sqlalchemy import Boolean, CheckConstraint, Column, SmallInteger, Table

from buffer_pipeline.tables.schema import metadata, time_column

# A trigger lets only empty books get the row, and no time go back.
sandbox = Table(
    "sandbox",
    metadata,
    Column("sandbox_id", SmallInteger, primary_key=True, autoincrement=False),
    time_column("now"),
    time_column("worked_until"),
    time_column("advance_from", nullable=True),
    time_column("advance_to", nullable=True),
    Column("daily_payouts", Boolean, nullable=False),
    CheckConstraint("sandbox_id = 1", name="sandbox_has_one_row"),
    CheckConstraint(
        "now >= timestamptz '1970-01-01 00:00:00+00' AND now < timestamptz '3000-01-01 00:00:00+00'",
        name="sandbox_now_is_within_the_years",
    ),
    CheckConstraint("worked_until <= now", name="sandbox_worked_until_is_not_after_now"),
    CheckConstraint("(advance_from IS NULL) = (advance_to IS NULL)", name="sandbox_advance_has_two_ends"),
    CheckConstraint("now >= advance_from AND now <= advance_to", name="sandbox_now_is_within_the_advance"),
)
