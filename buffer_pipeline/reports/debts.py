"""The debts of a day. Reads only."""

from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import Connection

from buffer_pipeline.database import fetch
from buffer_pipeline.reports.rows import Rows


def debts_of_day(connection: Connection, *, day: date) -> Rows:
    """Return the debts at the end of a day (UTC) by currency and creditor, the largest sum first.

    Each row has currency, `creditor` (None is a bank), `debts` (how many are open), outstanding_minor, and
    what was `opened` on that day (with opened_minor), recovered_minor and forgiven_minor. Whoever was owed
    something once has a row. It is computed from the debts and their transactions, so an old day stays the
    same.
    """
    start = datetime.combine(day, time(), tzinfo=UTC)
    found = fetch(connection, "report/debts_of_day", day_start=start, day_end=start + timedelta(days=1))
    return [dict(row) for row in found]
