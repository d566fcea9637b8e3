"""Which hours and days are over, complete and counted. Asked often, so this loads no pandas."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from sqlalchemy import Connection

from buffer_pipeline.database import fetch
from buffer_pipeline.errors import HourInProgress
from buffer_pipeline.hours import earliest_hour_in_progress, hour_of

DAY: Final = timedelta(days=1)

FORTNIGHT: Final = 14
"""The number of days before a day that the daily report compares it with."""


def midnight(day: date) -> datetime:
    """Return when a day begins, in UTC."""
    return datetime.combine(day, time(), tzinfo=UTC)


def require_complete(connection: Connection, *, end: datetime) -> None:
    """Refuse hours that an uncommitted transaction still writes into.

    Raises:
        HourInProgress: such an hour lies before `end`.
    """
    in_progress = earliest_hour_in_progress(connection)
    if in_progress is not None and in_progress < end:
        raise HourInProgress(in_progress)


def uncounted_hours(connection: Connection, *, start: datetime, end: datetime) -> list[datetime]:
    """Return the hours from `start` to before `end` that have not been counted, in order."""
    return [row["hour"] for row in fetch(connection, "hourly_counts/uncounted_hours", since=start, until=end)]


def first_hour(connection: Connection) -> datetime | None:
    """Return the hour of the earliest entry in the books, None if they are empty."""
    moment = fetch(connection, "hourly_counts/first_moment")[0]["moment"]
    return None if moment is None else hour_of(moment)


def differing_counts(connection: Connection, *, start: datetime, end: datetime) -> list[dict[str, Any]]:
    """Return the stored figures that differ from what the transactions say now.

    Each row has hour, currency and figure, the value that was `counted` and what the `transactions_say`.
    """
    return [dict(row) for row in fetch(connection, "hourly_counts/differing_hours", since=start, until=end)]


def last_day_over(connection: Connection, *, now: datetime) -> date:
    """Return yesterday (UTC), or the day before while a transaction still writes into yesterday.

    Statements after this one see everything of that day.

    Raises:
        HourInProgress: a transaction still writes into an hour before yesterday. Such an old time is
            probably a mistake, so an old day is not returned as the last one.
    """
    yesterday = now.astimezone(UTC).date() - DAY
    in_progress = earliest_hour_in_progress(connection)
    if in_progress is None or in_progress >= midnight(yesterday + DAY):
        return yesterday
    if in_progress < midnight(yesterday):
        raise HourInProgress(in_progress)
    return yesterday - DAY
