"""Which alerts operators have had: one a payment and day, one an hour while releases are overdue.

Sending is not done here. Whoever sends reads what is untold in one transaction, sends outside any,
and records in another: an alert may be repeated after a crash between the two, and none is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.hours import hour_of


class AlertKind(StrEnum):
    """What an alert is about. A subject is a hold's id, or empty where a kind has one subject only."""

    STUCK_PAYMENT = "STUCK_PAYMENT"
    OVERDUE_RELEASE = "OVERDUE_RELEASE"


@dataclass(frozen=True, kw_only=True)
class UntoldStuck:
    """Stuck holds that nobody was told of: ids, the longest frozen first; amounts in minor units."""

    hold_ids: list[int]
    amounts_minor: dict[str, int]


def day_of(moment: datetime) -> datetime:
    """Return the beginning of the day that `moment` lies in, in UTC."""
    return hour_of(moment).replace(hour=0)


def untold_stuck_payments(
    connection: AnyConnection, *, now: datetime, older_than: timedelta, period: datetime
) -> UntoldStuck:
    """Return the holds frozen for longer than `older_than` that nobody was told of in `period`."""
    row = fetch(connection, "alerts/untold_stuck_payments", frozen_before=now - older_than, period=period)[0]
    return UntoldStuck(hold_ids=row["hold_ids"] or [], amounts_minor=row["amounts_minor"] or {})


def is_told(connection: AnyConnection, *, kind: AlertKind, subject: str, period: datetime) -> bool:
    """Return whether operators were told of `subject` in `period`."""
    return bool(
        fetch(connection, "alerts/find_alert", kind=kind.value, subject=subject, period=period)[0]["told"]
    )


def record_told(
    connection: AnyConnection,
    *,
    kind: AlertKind,
    subjects: Sequence[str] | Sequence[int],
    period: datetime,
    now: datetime,
) -> int:
    """Remember that operators were told of `subjects` in `period`; return of how many for the first time.

    Safe to run again.
    """
    rows = fetch(
        connection, "alerts/record_alerts", kind=kind.value, subjects=list(subjects), period=period, now=now
    )
    return int(rows[0]["recorded"])
