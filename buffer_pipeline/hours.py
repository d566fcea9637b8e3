"""Hours in UTC, and which of them are complete.

A transaction that writes into an hour marks it until it ends (migration 0002), so that
an hour is counted only once nothing can be added to it. Marking waits for nobody.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.errors import InvalidInput

HOUR: Final = timedelta(hours=1)

AHEAD_MAX: Final = timedelta(days=1)
"""How far a platform's clock may be ahead of the database's; migration 0013 has it too."""

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


def enter_hour(connection: AnyConnection, *, now: datetime, ahead_max: timedelta = AHEAD_MAX) -> None:
    """Mark the hour of `now` as being written until the transaction ends.

    A verb does so before it waits for any lock, so that however long it waits, a count sees it. It also makes
    the commit wait for a synchronous standby, even if the verb only answers what it finds.

    Raises:
        InvalidInput: `now` is more than `ahead_max` after the database's clock, and the login is one that
            row-level security applies to.
    """
    if fetch(connection, "enter_hour", now=now, ahead_max=ahead_max)[0]["is_ahead"]:
        by = "more than a day after" if ahead_max else "after"
        raise InvalidInput(f"now {now.isoformat()}: {by} the database's clock")


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
