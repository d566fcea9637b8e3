"""Hours in UTC, and which of them are complete.

A transaction that writes into an hour marks it until it ends (migration 0002), so that
an hour is counted only once nothing can be added to it. Marking waits for nobody.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from buffer_pipeline.database import AnyConnection, fetch

HOUR: Final = timedelta(hours=1)

OVERDUE_AFTER: Final = timedelta(hours=1)

RELEASE_TAKES: Final = timedelta(minutes=10)
"""A payment that comes due behind the full hour is released at the next one, and a run takes its time."""


def hour_of(moment: datetime) -> datetime:
    """Return the beginning of the hour that `moment` lies in, in UTC."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def overdue_by(now: datetime) -> datetime:
    """Return by when a payment must have been due to be overdue.

    That is over an hour ago, and at or before the latest full hour whose release has had its time.
    """
    return min(now - OVERDUE_AFTER, hour_of(now - RELEASE_TAKES))


def enter_hour(connection: AnyConnection, *, now: datetime) -> None:
    """Mark the hour of `now` as being written until the transaction ends.

    A verb does so before it waits for any lock, so that however long it waits, a count sees it.
    """
    fetch(connection, "enter_hour", now=now)


def clock_of_a_writer(connection: AnyConnection) -> datetime:
    """Return the database's clock, its hour marked as being written until the transaction ends."""
    now = fetch(connection, "clock_of_a_writer")[0]["now"]
    assert isinstance(now, datetime)
    return now


def earliest_hour_in_progress(connection: AnyConnection) -> datetime | None:
    """Return the earliest hour that another, uncommitted transaction writes into.

    What is counted by a later statement holds everything before that hour.
    """
    hour: datetime | None = fetch(connection, "counts/earliest_hour_in_progress")[0]["hour"]
    return hour
