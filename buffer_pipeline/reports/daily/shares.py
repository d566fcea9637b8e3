"""Fees, taxes and reserves of a report: what was released, and what is in the buffer. Reads only."""

from datetime import date
from typing import Final

from sqlalchemy import Connection

from buffer_pipeline.database import fetch
from buffer_pipeline.reports.complete_hours import DAY, midnight
from buffer_pipeline.reports.rows import Rows

SHARE_AMOUNTS: Final = ("released_on_day_minor", "released_minor", "in_buffer_minor")


def shares_by_kind(connection: Connection, *, first_day: date, day: date) -> Rows:
    """Return a row for each currency and kind of share but the payees': none if no earning has such shares.

    `released_on_day_minor` is of the day, `released_minor` of the days from `first_day` to it, and
    `in_buffer_minor` at the end of the day.
    """
    found = fetch(
        connection,
        "report/shares",
        since=midnight(first_day),
        day=midnight(day),
        until=midnight(day + DAY),
    )
    # PostgreSQL's sum of bigint is numeric, which Python gets as Decimal.
    return [{**row, **{name: int(row[name]) for name in SHARE_AMOUNTS}} for row in found]
