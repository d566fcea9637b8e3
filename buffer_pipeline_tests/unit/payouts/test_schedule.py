"""An owner's schedule requests the whole balance, once on each day that it is due."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.owner_freeze import freeze_owner
from buffer_pipeline.payouts import (
    PayoutSchedule,
    ScheduledPayouts,
    request_scheduled_payouts,
    set_payout_schedule,
    show_payout_schedule,
)
from buffer_pipeline.payouts.schedule import due_schedules
from buffer_pipeline.policy import PayoutPolicy
from buffer_pipeline.tables import payout
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYEE, Wallet, books, wallet_of
from buffer_pipeline_tests.support.payouts import give, lines_of, payable, request

OTHER = "worker-18"


def plan(connection: Connection, owner: str = PAYEE, when: str = "DAILY", **changes: Any) -> None:
    """Set an owner's schedule."""
    given = {"owner": owner, "schedule": when, "by": ADMIN, "reason": "asked", "now": NOON}
    set_payout_schedule(connection, **{**given, **changes})


def run(connection: Connection, now: datetime = NOON, **changes: Any) -> ScheduledPayouts:
    """Request what is due."""
    return request_scheduled_payouts(connection, **{"by": "schedule", "now": now, **changes})


@pytest.mark.parametrize(
    ("day", "due"),
    [
        (datetime(2026, 3, 2, 0, 0, tzinfo=UTC), ["DAILY", "WEEKLY"]),
        (datetime(2026, 3, 3, 23, 59, tzinfo=UTC), ["DAILY"]),
        (datetime(2026, 4, 1, tzinfo=UTC), ["DAILY", "MONTHLY"]),
        (datetime(2026, 6, 1, tzinfo=UTC), ["DAILY", "WEEKLY", "MONTHLY"]),
    ],
)
def test_due_days(day: datetime, due: list[str]) -> None:
    """Weekly is on Monday, and monthly on the first."""
    assert due_schedules(day) == due


def test_whole_balance_is_requested_once_a_day(connection: Connection) -> None:
    """To run it again on that day requests nothing more of that wallet; the next day does."""
    payable(connection)
    give(connection, currency="EUR", amount="5.00")
    plan(connection)

    first = run(connection)
    give(connection)
    again = run(connection, NOON + timedelta(hours=11))

    assert first == ScheduledPayouts(payouts=2, amounts_minor={"EUR": 500, "PHP": 100_000})
    assert again == ScheduledPayouts(payouts=0, amounts_minor={})
    rows = connection.execute(select(payout).order_by("reference")).mappings().all()
    assert [row["reference"] for row in rows] == [
        "schedule:2026-03-02:worker-17:EUR",
        "schedule:2026-03-02:worker-17:PHP",
    ]
    assert (rows[1]["requested_by"], rows[1]["whole_balance"], rows[1]["state"]) == (
        "schedule",
        True,
        "REQUESTED",
    )
    assert lines_of(connection, rows[1]["payout_id"]) == [("PAYOUT", "BALANCE", "TRANSIT", 100_000, 0)]
    assert run(connection, NOON + timedelta(days=1)).payouts == 1
    assert reconcile(connection) == []


def test_newest_schedule_counts(connection: Connection) -> None:
    """An owner without one is paid by hand."""
    payable(connection)
    assert show_payout_schedule(connection, owner=PAYEE).schedule == PayoutSchedule.MANUAL
    assert run(connection).payouts == 0
    plan(connection, when="DAILY")
    plan(connection, when="MONTHLY", reason="less often")

    assert run(connection).payouts == 0
    shown = show_payout_schedule(connection, owner=PAYEE)
    assert (shown.schedule, shown.reason, shown.set_by) == (PayoutSchedule.MONTHLY, "less often", ADMIN)
    plan(connection, when="MANUAL")
    assert run(connection, datetime(2026, 6, 1, tzinfo=UTC)).payouts == 0


def test_only_who_may_be_paid_out(connection: Connection) -> None:
    """Not a frozen owner, not one without a destination, not below the minimum, not an empty balance."""
    give(connection, "no-destination")
    payable(connection, "frozen")
    payable(connection, "small", amount="49.99")
    payable(connection, "empty")
    request(connection, "empty", everything=True)
    payable(connection, "enough", amount="50.00")
    for owner in ("no-destination", "frozen", "small", "empty", "enough"):
        plan(connection, owner)
    freeze_owner(connection, owner="frozen", kind=FreezeKind.ADMIN, by=ADMIN, reason="a look", now=NOON)

    done = run(connection, policy=PayoutPolicy(minimums={"PHP": "50.00", "JPY": "100"}))

    assert done == ScheduledPayouts(payouts=1, amounts_minor={"PHP": 5_000})
    assert wallet_of(connection, "enough") == Wallet(balance_minor=0)


def test_used_reference_is_passed_over(connection: Connection) -> None:
    """Somebody has used it by hand: that payout stands, and the others are requested."""
    payable(connection)
    payable(connection, OTHER)
    plan(connection)
    plan(connection, OTHER)
    request(connection, reference="schedule:2026-03-02:worker-17:PHP")

    done = run(connection)

    assert done.payouts == 1
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=90_000)
    assert reconcile(connection) == []


def test_long_name_has_a_reference_too(connection: Connection) -> None:
    """A reference has 200 characters, and so may an owner's name."""
    owner = "w" * 200
    payable(connection, owner)
    plan(connection, owner)

    assert run(connection).payouts == 1
    assert run(connection).payouts == 0


def test_day_long_ago_is_refused(connection: Connection) -> None:
    """The last day that can be requested is 31 days ago. Nothing is written for an earlier one."""
    payable(connection)
    plan(connection, now=NOON - timedelta(days=60))
    earliest = NOON.date() - timedelta(days=31)
    before = books(connection)

    with pytest.raises(InvalidInput, match="2026-01-29 is more than 31 days ago"):
        run(connection, day=earliest - timedelta(days=1))

    assert books(connection) == before
    assert run(connection, day=earliest).payouts == 1


def test_schedule_does_not_reach_back_before_it_was_set(connection: Connection) -> None:
    """Only owners whose newest schedule was set before the end of the day have a payout of that day."""
    monday, midnight = NOON.date(), datetime(2026, 3, 3, tzinfo=UTC)
    for owner, set_at in (
        ("late", midnight),
        ("in-time", midnight - timedelta(microseconds=1)),
        ("changed", NOON),
    ):
        payable(connection, owner)
        plan(connection, owner, "WEEKLY", now=set_at)
    plan(connection, "changed", "WEEKLY", now=midnight)

    done = run(connection, midnight + timedelta(hours=6), day=monday)

    assert done.payouts == 1
    assert wallet_of(connection, "in-time") == Wallet(balance_minor=0)


@pytest.mark.parametrize("changes", [{"when": "HOURLY"}, {"by": ""}, {"reason": ""}, {"owner": ""}])
def test_bad_schedule_is_refused(connection: Connection, changes: dict[str, Any]) -> None:
    """Nothing is written."""
    before = books(connection)

    with pytest.raises(InvalidInput):
        plan(connection, **changes)

    assert books(connection) == before
