"""Which alerts operators were sent: one per payment or batch of payouts and day, one per hour while releases
are overdue.

Sending is not done here. The sender reads what is not reported yet in one transaction, sends outside any
transaction, and records the alert in another one. After a crash in between, the alert is sent again; none is
lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from buffer_pipeline.database import AnyConnection, array_text, fetch
from buffer_pipeline.hours import hour_of

NO_HOLDS: Final = "{}"


class AlertKind(StrEnum):
    """What an alert is about."""

    STUCK_PAYMENT = "STUCK_PAYMENT"
    OVERDUE_RELEASE = "OVERDUE_RELEASE"
    STUCK_PAYOUT = "STUCK_PAYOUT"


@dataclass(frozen=True, kw_only=True)
class UnreportedStuck:
    """Stuck holds of which no alert was sent: how many, the ids to show, amounts in minor units.

    `shown_ids` leaves out holds that only their owner's freeze covers; `owner_freeze_ids` are the freezes of
    these owners. `hold_ids` are all ids as the database writes an array, `{41,42}`. They are only passed back
    to the database, so 100,000 of them are not converted to Python's numbers.
    """

    holds: int
    shown_ids: list[int]
    owner_freeze_ids: list[int]
    amounts_minor: dict[str, int]
    hold_ids: str


def day_of(moment: datetime) -> datetime:
    """Return the beginning of the day of `moment`, in UTC."""
    return hour_of(moment).replace(hour=0)


def unreported_stuck_payments(
    connection: AnyConnection, *, now: datetime, older_than: timedelta, period: datetime, shown: int
) -> UnreportedStuck:
    """Return the holds frozen for longer than `older_than` of which no alert was sent in `period`.

    `shown_ids` are at most `shown` of them, the longest frozen first.
    """
    row = fetch(
        connection,
        "alerts/unreported_stuck_payments",
        frozen_before=now - older_than,
        period=period,
        shown=shown,
    )[0]
    return UnreportedStuck(
        holds=row["holds"],
        shown_ids=row["shown_ids"] or [],
        owner_freeze_ids=row["owner_freeze_ids"] or [],
        amounts_minor=row["amounts_minor"] or {},
        hold_ids=row["hold_ids"] or NO_HOLDS,
    )


def reported_payout_batches(connection: AnyConnection, *, period: datetime) -> frozenset[int]:
    """Return the batches of payouts of which an alert was sent in `period`."""
    rows = fetch(connection, "alerts/reported_payout_batches", period=period)
    return frozenset(row["payout_batch_id"] for row in rows)


def reported_payouts(connection: AnyConnection, *, period: datetime) -> frozenset[int]:
    """Return the payouts without a batch of which an alert was sent in `period`."""
    rows = fetch(connection, "alerts/reported_payouts", period=period)
    return frozenset(row["payout_id"] for row in rows)


def is_alert_sent(connection: AnyConnection, *, kind: AlertKind, period: datetime) -> bool:
    """Return whether an alert of this kind was sent in `period`."""
    return bool(fetch(connection, "alerts/find_alert", kind=kind.value, period=period)[0]["is_sent"])


def record_sent_alert(
    connection: AnyConnection,
    *,
    kind: AlertKind,
    period: datetime,
    now: datetime,
    hold_ids: str = NO_HOLDS,
    payout_batch_ids: Sequence[int] = (),
    payout_ids: Sequence[int] = (),
) -> None:
    """Record that an alert was sent, with what it was about: STUCK_PAYMENT has holds, STUCK_PAYOUT batches,
    or payouts that no batch takes, or both.

    `hold_ids` are as in `UnreportedStuck`.
    """
    fetch(
        connection,
        "alerts/record_alert",
        kind=kind.value,
        period=period,
        hold_ids=hold_ids,
        payout_batch_ids=array_text(payout_batch_ids),
        payout_ids=array_text(payout_ids),
        now=now,
    )
