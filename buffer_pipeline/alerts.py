"""Which alerts operators have had: one a payment and day, one an hour while releases are overdue.

Sending is not done here. Whoever sends reads what is untold in one transaction, sends outside any,
and records in another: an alert may be repeated after a crash between the two, and none is lost.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.hours import hour_of

NO_HOLDS: Final = "{}"


class AlertKind(StrEnum):
    """What an alert is about."""

    STUCK_PAYMENT = "STUCK_PAYMENT"
    OVERDUE_RELEASE = "OVERDUE_RELEASE"


@dataclass(frozen=True, kw_only=True)
class UntoldStuck:
    """Stuck holds that nobody was told of: how many, the ids to show, amounts in minor units.

    `hold_ids` are all ids as the database writes an array, `{41,42}`: they are only handed back to it,
    and 100,000 need not become Python's numbers for that.
    """

    holds: int
    shown_ids: list[int]
    amounts_minor: dict[str, int]
    hold_ids: str


def day_of(moment: datetime) -> datetime:
    """Return the beginning of the day that `moment` lies in, in UTC."""
    return hour_of(moment).replace(hour=0)


def untold_stuck_payments(
    connection: AnyConnection, *, now: datetime, older_than: timedelta, period: datetime, shown: int
) -> UntoldStuck:
    """Return the holds frozen for longer than `older_than` that nobody was told of in `period`.

    `shown_ids` are at most `shown`, the longest frozen first.
    """
    row = fetch(
        connection,
        "alerts/untold_stuck_payments",
        frozen_before=now - older_than,
        period=period,
        shown=shown,
    )[0]
    return UntoldStuck(
        holds=row["holds"],
        shown_ids=row["shown_ids"] or [],
        amounts_minor=row["amounts_minor"] or {},
        hold_ids=row["hold_ids"] or NO_HOLDS,
    )


def is_told(connection: AnyConnection, *, kind: AlertKind, period: datetime) -> bool:
    """Return whether operators had an alert of this kind in `period`."""
    return bool(fetch(connection, "alerts/find_alert", kind=kind.value, period=period)[0]["told"])


def record_told(
    connection: AnyConnection,
    *,
    kind: AlertKind,
    period: datetime,
    now: datetime,
    hold_ids: str = NO_HOLDS,
) -> None:
    """Remember an alert that went out, and of a STUCK_PAYMENT which holds it was about.

    `hold_ids` are as in `UntoldStuck`.
    """
    fetch(connection, "alerts/record_alert", kind=kind.value, period=period, hold_ids=hold_ids, now=now)
