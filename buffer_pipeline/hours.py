"""Hours in UTC, and which of them are complete.

A transaction that writes into an hour marks that hour until it ends (migration 0002). A count leaves out
marked hours. A seal waits until the transactions that have marked any hour have ended. Marking never waits.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.errors import InvalidInput

HOUR: Final = timedelta(hours=1)

AHEAD_MAX: Final = timedelta(days=1)
"""How far a platform's clock may be ahead of the database's. Migration 0013 has the same limit."""

OVERDUE_AFTER: Final = timedelta(hours=1)

RELEASE_TAKES: Final = timedelta(minutes=10)
"""Allowed duration of a release run. A payment due after the full hour is released at the next one."""


def hour_of(moment: datetime) -> datetime:
    """Return the beginning of the hour that contains `moment`, in UTC."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def overdue_by(now: datetime) -> datetime:
    """Return the latest release date at which a payment is overdue.

    It is at least an hour ago, and not after the last full hour whose release had RELEASE_TAKES to run.
    """
    return min(now - OVERDUE_AFTER, hour_of(now - RELEASE_TAKES))


def enter_hour(connection: AnyConnection, *, now: datetime, ahead_max: timedelta = AHEAD_MAX) -> None:
    """Mark the hour of `now` as being written until the transaction ends.

    A verb does so before it waits for a lock, so a count sees the mark however long the verb waits. Only a
    deposit and a withdrawal leave it to the trigger of their insert, which is their last wait.

    The call also makes the commit wait for the synchronous standby, even if the verb only reads (a replay).

    Raises:
        InvalidInput: `now` is more than `ahead_max` after the database's clock. A login that row-level
            security does not apply to, such as the books' owner, is not checked.
    """
    if fetch(connection, "hours/enter_hour", now=now, ahead_max=ahead_max)[0]["is_ahead"]:
        by = "more than a day after" if ahead_max else "after"
        raise InvalidInput(f"now {now.isoformat()}: {by} the database's clock")


def clock_of_a_writer(connection: AnyConnection) -> datetime:
    """Return the clock of the books, and mark its hour as being written until the transaction ends."""
    now = fetch(connection, "hours/clock_of_a_writer")[0]["now"]
    assert isinstance(now, datetime)
    return now


def earliest_hour_in_progress(connection: AnyConnection) -> datetime | None:
    """Return the earliest hour that another, uncommitted transaction writes into; None if there is none.

    A later statement sees everything that was written into the hours before it.
    """
    hour: datetime | None = fetch(connection, "hours/earliest_hour_in_progress")[0]["hour"]
    return hour
