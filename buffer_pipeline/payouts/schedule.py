"""Schedules of owners, and the payouts that are requested by them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import AnyConnection, array_text, fetch
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import require_reason, require_text, require_time
from buffer_pipeline.policy import PayoutPolicy

MISSED_DAYS_MAX: Final = 31
"""A missed day is requested at most so many days later: a monthly owner has had the next one by then."""


class PayoutSchedule(StrEnum):
    """When the whole balance of an owner is paid out: by hand, every day, on Mondays, or on the first."""

    MANUAL = "MANUAL"
    DAILY = "DAILY"
    WEEKLY = "WEEKLY"
    MONTHLY = "MONTHLY"


@dataclass(frozen=True, kw_only=True)
class OwnerSchedule:
    """An owner's schedule. One that nobody has set has no `set_by`, `reason` and `set_at`."""

    owner: str
    schedule: PayoutSchedule
    set_by: str | None = None
    reason: str | None = None
    set_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ScheduledPayouts:
    """What the schedules of a day requested; the amounts by currency are minor units."""

    payouts: int
    amounts_minor: dict[str, int]


def set_payout_schedule(
    connection: AnyConnection,
    *,
    owner: str,
    schedule: PayoutSchedule | str,
    by: str,
    reason: str,
    now: datetime,
) -> OwnerSchedule:
    """Set when the owner's balances are paid out from now on. To run it again adds the same once more.

    Raises:
        InvalidInput: an unknown schedule.
    """
    require_time("now", now)
    require_text("owner", owner)
    require_text("by", by)
    require_reason(reason)
    try:
        known = PayoutSchedule(schedule)
    except ValueError:
        raise InvalidInput(
            f"schedule of {owner!r}: {schedule!r} is not {', '.join(PayoutSchedule)}", owner=owner
        ) from None
    enter_hour(connection, now=now)
    fetch(connection, "payouts/lock_owner", owner=owner)
    rows = fetch(
        connection,
        "payouts/add_schedule",
        owner=owner,
        schedule=known.value,
        set_by=by,
        reason=reason,
        now=now,
    )
    assert rows, "the number exists although its owner was locked"
    return OwnerSchedule(**{**rows[0], "schedule": known})


def show_payout_schedule(connection: AnyConnection, *, owner: str) -> OwnerSchedule:
    """Return the owner's schedule; MANUAL if nobody has set one."""
    rows = fetch(connection, "payouts/find_schedule", owner=require_text("owner", owner))
    if not rows:
        return OwnerSchedule(owner=owner, schedule=PayoutSchedule.MANUAL)
    return OwnerSchedule(**{**rows[0], "schedule": PayoutSchedule(rows[0]["schedule"])})


def request_scheduled_payouts(
    connection: AnyConnection,
    *,
    by: str,
    now: datetime,
    day: date | None = None,
    policy: PayoutPolicy | None = None,
) -> ScheduledPayouts:
    """Request a payout of the whole balance of each owner whose schedule is due.

    The day is that of `now` in UTC. A `day` before it is for schedules that were missed on it: what is paid
    out is the balance of now, to owners whose newest schedule was set before the end of that day. An owner
    without a destination, or who is frozen or owes a debt, and a balance below the minimum get none. Each
    payout has a reference such as `schedule:2026-03-02:worker-17:PHP`, so to run it again for the same day
    requests only what was not requested yet: a balance is paid out once a day.

    Raises:
        InvalidInput: a day that has not begun, or that is more than 31 days ago.
    """
    now = require_time("now", now)
    require_text("by", by)
    day = day or now.date()
    if day > now.date():
        raise InvalidInput(f"scheduled payouts: {day.isoformat()} has not begun (UTC)")
    if day < now.date() - timedelta(days=MISSED_DAYS_MAX):
        raise InvalidInput(
            f"scheduled payouts: {day.isoformat()} is more than {MISSED_DAYS_MAX} days ago (UTC)"
        )
    return request_due(connection, dict.fromkeys(due_schedules(day), day), by=by, now=now, policy=policy)


def request_due(
    connection: AnyConnection,
    due: Mapping[str, date],
    *,
    by: str,
    now: datetime,
    policy: PayoutPolicy | None = None,
) -> ScheduledPayouts:
    """Request the balances of owners who have one of the schedules, each for the day of that schedule."""
    policy = policy or PayoutPolicy()
    places = places_of(connection)
    minimums = {
        currency: policy.minimum_minor(currency, places[currency])
        for currency in policy.minimums
        if currency in places
    }
    enter_hour(connection, now=now)
    locked = fetch(
        connection,
        "payouts/lock_scheduled",
        schedules=list(due),
        days=[day.isoformat() for day in due.values()],
    )[0]
    rows = fetch(
        connection,
        "payouts/request_scheduled",
        wallet_ids=array_text(locked["wallet_ids"]),
        days=locked["days"],
        currencies=list(minimums),
        minimums_minor=array_text(list(minimums.values())),
        requested_by=by,
        now=now,
    )
    return ScheduledPayouts(
        payouts=sum(row["payouts"] for row in rows),
        amounts_minor={row["currency"]: row["amount_minor"] for row in rows},
    )


def due_schedules(day: date) -> list[str]:
    """Return the schedules that are due on a day, in UTC."""
    due = [PayoutSchedule.DAILY]
    if day.isoweekday() == 1:
        due.append(PayoutSchedule.WEEKLY)
    if day.day == 1:
        due.append(PayoutSchedule.MONTHLY)
    return [schedule.value for schedule in due]


def missed_schedules(today: date, *, last_day: date | None) -> dict[str, date]:
    """Return the schedules that were due after `last_day` and are not due today, with their latest day.

    DAILY is never among them, because it is due today. Each schedule has one day, so that several missed days
    are one payout. Nothing was missed if no day was ever requested.
    """
    latest = {
        PayoutSchedule.WEEKLY.value: today - timedelta(days=today.weekday()),
        PayoutSchedule.MONTHLY.value: today.replace(day=1),
    }
    return {
        schedule: day for schedule, day in latest.items() if last_day is not None and last_day < day < today
    }
