"""The batches of a day: what is due by schedule and what else is requested, made once."""

from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.errors import InvalidInput, NotAllowed
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.owner_freeze import freeze_owner
from buffer_pipeline.payouts import (
    LeftPayouts,
    PayoutMethod,
    ScheduledBatches,
    ScheduledPayouts,
    approve_payout_batch,
    make_scheduled_batches,
    request_scheduled_payouts,
    set_destination,
    set_payout_schedule,
)
from buffer_pipeline.policy import PayoutPolicy
from buffer_pipeline.tables import payout, payout_batch
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYEE, all_at_once
from buffer_pipeline_tests.support.payouts import APPROVER, DAY_3, give, payable, request, to_iban

BY = "schedule"


def plan(connection: Connection, owner: str = PAYEE, when: str = "DAILY") -> None:
    """Set an owner's schedule."""
    set_payout_schedule(connection, owner=owner, schedule=when, by=ADMIN, reason="asked", now=NOON)


def make(connection: Connection, **changes: Any) -> ScheduledBatches:
    """Make the batches of the third day."""
    return make_scheduled_batches(connection, **{"by": BY, "now": DAY_3, **changes})


def batches(connection: Connection) -> list[tuple[str, str, int, int, str]]:
    """Return currency, method, number, amount and maker of each batch."""
    batch = payout_batch.c
    rows = connection.execute(
        select(batch.currency, batch.method, batch.payouts, batch.amount_minor, batch.made_by).order_by(
            batch.currency, batch.method
        )
    )
    return [tuple(row) for row in rows]


def test_one_batch_for_each_currency_and_method(connection: Connection) -> None:
    """Of what is due by schedule and of what owners have requested. Somebody else approves each."""
    payable(connection)
    give(connection, currency="EUR", amount="5.00")
    plan(connection)
    payable(connection, "by-hand")
    request(connection, "by-hand")
    give(connection, "by-token")
    set_destination(
        connection,
        owner="by-token",
        method=PayoutMethod.TOKEN,
        account="acct-1234567890",
        by=ADMIN,
        reason="new",
        now=NOON,
    )
    plan(connection, "by-token")

    done = make(connection)

    assert done.requested == ScheduledPayouts(payouts=3, amounts_minor={"EUR": 500, "PHP": 200_000})
    assert batches(connection) == [
        ("EUR", "IBAN", 1, 500, BY),
        ("PHP", "IBAN", 2, 110_000, BY),
        ("PHP", "TOKEN", 1, 100_000, BY),
    ]
    assert [batch.amount_minor for batch in done.batches] == [500, 110_000, 100_000]
    assert done.left == LeftPayouts()
    first = done.batches[0].payout_batch_id
    with pytest.raises(NotAllowed, match="somebody else"):
        approve_payout_batch(connection, payout_batch_id=first, by=BY, now=DAY_3)
    approve_payout_batch(connection, payout_batch_id=first, by=APPROVER, now=DAY_3)
    assert reconcile(connection) == []


def test_again_makes_nothing_twice(connection: Connection) -> None:
    """Only what was requested since gets into another batch. A balance is requested once a day."""
    payable(connection)
    plan(connection)
    make(connection)
    give(connection)

    again = make(connection, now=DAY_3 + timedelta(hours=1))
    request(connection)
    later = make(connection, now=DAY_3 + timedelta(hours=2))

    assert (again.requested.payouts, again.batches) == (0, ())
    assert [batch.amount_minor for batch in later.batches] == [10_000]
    assert reconcile(connection) == []


def test_what_stays_requested_is_counted_by_its_reason(connection: Connection) -> None:
    """Owners who are frozen, and those whose destination is new."""
    for owner in ("cold", "new", "fine"):
        payable(connection, owner)
        request(connection, owner)
    freeze_owner(connection, owner="cold", kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=NOON)
    to_iban(connection, "new", now=DAY_3)

    done = make(connection)

    assert [batch.payouts for batch in done.batches] == [1]
    assert done.left == LeftPayouts(frozen=1, waiting=1)


def test_two_at_once_make_one_batch(engine: Engine) -> None:
    """The second one waits for the first, and finds nothing left to request or to put into a batch."""
    with engine.begin() as connection:
        for number in range(20):
            payable(connection, f"worker-{number}")
            plan(connection, f"worker-{number}")
        for number in range(20):
            payable(connection, f"asks-{number}")
            request(connection, f"asks-{number}")

    outcomes: list[Any] = all_at_once(engine, *[make] * 3)

    assert sorted(outcome.requested.payouts for outcome in outcomes) == [0, 0, 20]
    assert sorted(len(outcome.batches) for outcome in outcomes) == [0, 0, 1]
    with engine.connect() as connection:
        assert batches(connection) == [("PHP", "IBAN", 40, 2_200_000, BY)]
        assert connection.scalar(select(func.count()).select_from(payout)) == 40
        assert reconcile(connection) == []


def test_setting_that_a_currency_cannot_have_makes_nothing(connection: Connection) -> None:
    """It is refused by name, also for the currencies before it."""
    for currency, amount in (("JPY", "5000"), ("PHP", "50.00")):
        give(connection, amount=amount, currency=currency)
    to_iban(connection)
    plan(connection)

    with pytest.raises(InvalidInput), connection.begin_nested():
        make(connection, policy=PayoutPolicy(four_eyes_above={"PHP": "0.001"}))

    assert batches(connection) == []
    assert connection.scalar(select(func.count()).select_from(payout)) == 0


def test_missed_day_is_requested_by_its_name(connection: Connection) -> None:
    """On Tuesday what Monday has missed, once. A day that has not begun is refused."""
    payable(connection)
    plan(connection, when="WEEKLY")
    monday, tuesday = NOON.date(), NOON + timedelta(days=1)
    asked: dict[str, Any] = {"by": BY, "now": tuesday}

    today = request_scheduled_payouts(connection, **asked)
    missed = request_scheduled_payouts(connection, **asked, day=monday)
    give(connection)
    again = request_scheduled_payouts(connection, **asked, day=monday)

    assert (today.payouts, missed.payouts, again.payouts) == (0, 1, 0)
    [row] = connection.execute(select(payout.c.reference, payout.c.requested_at)).all()
    assert tuple(row) == ("schedule:2026-03-02:worker-17:PHP", tuesday)
    with pytest.raises(InvalidInput, match="2026-03-04 has not begun"):
        request_scheduled_payouts(connection, **asked, day=date(2026, 3, 4))


MONDAY, TUESDAY = NOON.date(), NOON + timedelta(days=1)


def references(connection: Connection) -> list[str]:
    """Return the reference of each payout."""
    return list(connection.scalars(select(payout.c.reference).order_by("reference")))


def test_missed_monday_is_made_up_for(connection: Connection) -> None:
    """On Tuesday, if the last run was before Monday. Daily owners are paid for Tuesday only."""
    for owner, when in (("daily", "DAILY"), ("weekly", "WEEKLY"), ("monthly", "MONTHLY")):
        payable(connection, owner)
        plan(connection, owner, when)

    done = make(connection, now=TUESDAY, last_day=MONDAY - timedelta(days=1))

    assert references(connection) == ["schedule:2026-03-02:weekly:PHP", "schedule:2026-03-03:daily:PHP"]
    assert (done.requested.payouts, done.missed_days) == (2, (MONDAY,))
    assert reconcile(connection) == []


@pytest.mark.parametrize("last_day", [None, MONDAY, TUESDAY.date()])
def test_balance_that_filled_up_after_the_monday_waits(connection: Connection, last_day: date | None) -> None:
    """If Monday was requested, it is not requested again, also for owners who got no payout on it. Nothing
    is made up for if no day was ever requested.
    """
    plan(connection, when="WEEKLY")
    make(connection, now=NOON)
    payable(connection)

    done = make(connection, now=TUESDAY, last_day=last_day)

    assert (references(connection), done.missed_days) == ([], ())


def test_several_missed_days_are_one_payout(connection: Connection) -> None:
    """For the latest of them: of many Mondays, and of a first of the month long ago."""
    for owner, when in (("weekly", "WEEKLY"), ("monthly", "MONTHLY")):
        payable(connection, owner)
        plan(connection, owner, when)
    saturday = NOON + timedelta(days=33 + 21)

    done = make(connection, now=saturday, last_day=MONDAY)
    for owner in ("weekly", "monthly"):
        give(connection, owner)
    again = make(connection, now=saturday + timedelta(hours=1), last_day=MONDAY)

    assert references(connection) == ["schedule:2026-04-01:monthly:PHP", "schedule:2026-04-20:weekly:PHP"]
    assert done.missed_days == (date(2026, 4, 1), date(2026, 4, 20))
    assert again.requested.payouts == 0


def test_day_that_is_due_itself_leaves_nothing_to_make_up_for(connection: Connection) -> None:
    """On a Monday, a weekly owner is paid for that Monday, and not for the missed one before."""
    payable(connection)
    plan(connection, when="WEEKLY")
    asked: dict[str, Any] = {"now": NOON + timedelta(days=7), "last_day": MONDAY - timedelta(days=1)}

    make(connection, **asked)
    give(connection)
    make(connection, **asked)

    assert references(connection) == ["schedule:2026-03-09:worker-17:PHP"]


def test_missed_day_is_not_made_up_for_by_a_later_schedule(connection: Connection) -> None:
    """An owner who became weekly on Tuesday waits for the next Monday."""
    payable(connection)
    set_payout_schedule(
        connection, owner=PAYEE, schedule="WEEKLY", by=ADMIN, reason="asked", now=TUESDAY - timedelta(hours=9)
    )

    make(connection, now=TUESDAY, last_day=MONDAY - timedelta(days=1))

    assert references(connection) == []
