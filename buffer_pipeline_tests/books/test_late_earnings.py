"""An open backjob also freezes earnings that are added to its job later."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import Backjob, approve_backjob, reject_backjob, withdraw_backjob
from buffer_pipeline.hold import HoldState
from buffer_pipeline.intake import AddedHold, add_many_pending_earnings
from buffer_pipeline.tables import hold_freeze
from buffer_pipeline_tests.support.backjobs import request
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    JOB,
    NOON,
    PAYEE,
    PAYER,
    Wallet,
    all_at_once,
    books,
    hold_row,
    notifications_of,
    one_after_the_other,
    open_freezes,
    place_hold,
    release_date_of,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.support.earnings import WAYS, Add, earning

DAY = timedelta(days=1)


@WAYS
def test_an_earning_during_an_open_backjob_is_frozen_by_it(connection: Connection, add: Add) -> None:
    """The backjob has the new hold, and the payee gets notifications that it is pending and frozen."""
    place_hold(connection)
    opened = request(connection, reason="it leaks")

    added = add(connection, payee="worker-18", held_at=NOON + DAY)

    assert (added.state, added.replayed) == (HoldState.FROZEN, False)
    assert state_of(connection, added.hold_id) is HoldState.FROZEN
    assert open_freezes(connection, added.hold_id) == ["BACKJOB"]
    assert release_date_of(connection, added.hold_id) == DAY_7 + DAY
    freeze = (
        connection.execute(select(hold_freeze).where(hold_freeze.c.hold_id == added.hold_id)).mappings().one()
    )
    assert (freeze["backjob_id"], freeze["opened_by"]) == (opened.backjob_id, PAYER)
    assert (freeze["reason"], freeze["opened_at"]) == ("it leaks", NOON + DAY)
    assert notifications_of(connection, "worker-18") == ["PAYMENT_PENDING", "PAYMENT_FROZEN"]
    assert wallet_of(connection, "worker-18") == Wallet(pending_earnings_minor=1_000)
    assert reconcile(connection) == []


@WAYS
def test_replay_of_a_frozen_earning_returns_its_state(connection: Connection, add: Add) -> None:
    """The replay returns FROZEN and writes nothing."""
    place_hold(connection)
    request(connection)
    added = add(connection)
    before = books(connection)

    again = add(connection)

    assert (again.hold_id, again.state, again.replayed) == (added.hold_id, HoldState.FROZEN, True)
    assert books(connection) == before


@WAYS
def test_an_earning_whose_window_is_closed_is_not_frozen(connection: Connection, add: Add) -> None:
    """No backjob could be requested on it, so it is due at once."""
    place_hold(connection)
    request(connection)

    added = add(connection, held_at=NOON, release_date=NOON)

    assert added.state is HoldState.BUFFERED
    assert open_freezes(connection, added.hold_id) == []
    assert notifications_of(connection, PAYEE)[-1] == "PAYMENT_PENDING"


@WAYS
def test_an_earning_of_another_job_is_not_frozen(connection: Connection, add: Add) -> None:
    """A backjob freezes holds of its own job only."""
    place_hold(connection)
    request(connection)

    added = add(connection, job="job-9")

    assert added.state is HoldState.BUFFERED


def test_many_earnings_are_frozen_by_their_own_jobs_backjob(connection: Connection) -> None:
    """In one call, only earnings on a job with an open backjob are frozen. With notify=False nobody is
    notified.
    """
    place_hold(connection)
    place_hold(connection, job="job-9")
    first, second = request(connection), request(connection, job="job-9")
    named = [
        earning(reference=f"late-{number}", job=name, payee=f"worker-{number}")
        for number, name in enumerate((JOB, "job-10", "job-9", JOB))
    ]

    outcomes = add_many_pending_earnings(connection, named, now=NOON, notify=False)

    added = [outcome for outcome in outcomes if isinstance(outcome, AddedHold)]
    assert [one.state for one in added] == ["FROZEN", "BUFFERED", "FROZEN", "FROZEN"]
    freezes = connection.execute(select(hold_freeze.c.hold_id, hold_freeze.c.backjob_id)).all()
    of_hold = {row.hold_id: row.backjob_id for row in freezes}
    assert [of_hold.get(one.hold_id) for one in added] == [
        first.backjob_id,
        None,
        second.backjob_id,
        first.backjob_id,
    ]
    assert [notifications_of(connection, f"worker-{number}") for number in range(4)] == [[]] * 4
    assert reconcile(connection) == []


@WAYS
def test_a_late_earning_is_decided_with_the_others(connection: Connection, add: Add) -> None:
    """A rejection adds the cooldown, a withdrawal keeps the release date, an approval refunds."""
    first = place_hold(connection)
    backjob_id = request(connection).backjob_id
    late = add(connection).hold_id
    decided: dict[str, Any] = {"by": ADMIN, "reason": "looked at it", "now": NOON}

    rejected = reject_backjob(connection, backjob_id=backjob_id, **decided)

    assert rejected.hold_ids == (first, late)
    assert state_of(connection, late) is HoldState.BUFFERED
    assert release_date_of(connection, late) == DAY_7 + DAY
    withdrawn = withdraw_backjob(connection, backjob_id=request(connection).backjob_id, **decided)
    assert withdrawn.hold_ids == (first, late)
    assert release_date_of(connection, late) == DAY_7 + DAY
    approve_backjob(connection, backjob_id=request(connection).backjob_id, **decided)
    assert state_of(connection, late) is HoldState.REFUNDED
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=101_000)
    assert reconcile(connection) == []


@WAYS
def test_a_late_earning_is_refunded_by_the_backjob_that_froze_it(connection: Connection, add: Add) -> None:
    """The approval of the backjob that was open at its intake refunds it."""
    place_hold(connection)
    backjob_id = request(connection).backjob_id
    late = add(connection).hold_id

    approve_backjob(connection, backjob_id=backjob_id, by=ADMIN, reason="indeed", amount="1010", now=NOON)

    assert hold_row(connection, late)["refunded_minor"] == 1_000
    assert state_of(connection, late) is HoldState.REFUNDED
    assert reconcile(connection) == []


@WAYS
@pytest.mark.parametrize("decide", [reject_backjob, withdraw_backjob, approve_backjob])
def test_after_the_decision_an_earning_is_buffered(
    connection: Connection, add: Add, decide: Callable[..., Backjob]
) -> None:
    """Without an open backjob a new hold is BUFFERED."""
    place_hold(connection)
    opened = request(connection)
    decide(connection, backjob_id=opened.backjob_id, by=ADMIN, reason="looked at it", now=NOON)

    added = add(connection)

    assert added.state is HoldState.BUFFERED
    assert open_freezes(connection, added.hold_id) == []


@WAYS
def test_earning_that_waits_for_a_request_is_frozen(engine: Engine, add: Add) -> None:
    """It finds the backjob after the request's commit."""
    with engine.begin() as connection:
        place_hold(connection)

    opened, added = one_after_the_other(engine, request, add)

    assert isinstance(added, AddedHold)
    assert added.hold_id not in opened.hold_ids
    assert added.state is HoldState.FROZEN
    with engine.connect() as connection:
        assert open_freezes(connection, added.hold_id) == ["BACKJOB"]
        assert reconcile(connection) == []


@WAYS
def test_request_that_waits_for_an_earning_freezes_it(engine: Engine, add: Add) -> None:
    """The request finds the hold after the earning's commit."""
    with engine.begin() as connection:
        place_hold(connection)

    added, opened = one_after_the_other(engine, add, request)

    assert isinstance(opened, Backjob)
    assert added.hold_id in opened.hold_ids
    assert added.state is HoldState.BUFFERED
    with engine.connect() as connection:
        assert state_of(connection, added.hold_id) is HoldState.FROZEN
        assert reconcile(connection) == []


@WAYS
def test_concurrent_request_and_earnings_leave_no_hold_unfrozen(engine: Engine, add: Add) -> None:
    """In any order, no hold with an open window stays unfrozen under an open backjob."""
    with engine.begin() as connection:
        place_hold(connection)

    def adding(number: int) -> Callable[[Connection], object]:
        return lambda connection: add(connection, reference=f"late-{number}", payee=f"worker-{number}")

    outcomes = all_at_once(engine, adding(1), adding(2), request, adding(3))

    added = [outcome for outcome in outcomes if isinstance(outcome, AddedHold)]
    assert (len(added), sum(isinstance(outcome, Backjob) for outcome in outcomes)) == (3, 1)
    with engine.connect() as connection:
        assert {state_of(connection, one.hold_id) for one in added} == {HoldState.FROZEN}
        assert {tuple(open_freezes(connection, one.hold_id)) for one in added} == {("BACKJOB",)}
        assert reconcile(connection) == []


@WAYS
@pytest.mark.parametrize(
    ("decide", "state"),
    [(reject_backjob, HoldState.BUFFERED), (approve_backjob, HoldState.REFUNDED)],
)
def test_earning_that_waits_for_a_decision_is_buffered(
    engine: Engine, add: Add, decide: Callable[..., Backjob], state: HoldState
) -> None:
    """The backjob is closed when the hold is added."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        backjob_id = request(connection).backjob_id

    _, added = one_after_the_other(
        engine,
        lambda connection: decide(
            connection, backjob_id=backjob_id, by=ADMIN, reason="looked at it", now=NOON
        ),
        add,
    )

    assert isinstance(added, AddedHold)
    with engine.connect() as connection:
        assert state_of(connection, hold_id) is state
        assert state_of(connection, added.hold_id) is HoldState.BUFFERED
        assert reconcile(connection) == []


@WAYS
def test_decision_that_waits_for_an_earning_includes_it(engine: Engine, add: Add) -> None:
    """The decision also settles the hold that its backjob froze meanwhile."""
    with engine.begin() as connection:
        place_hold(connection)
        backjob_id = request(connection).backjob_id

    added, decided = one_after_the_other(
        engine,
        add,
        lambda connection: reject_backjob(
            connection, backjob_id=backjob_id, by=ADMIN, reason="looked at it", now=NOON
        ),
    )

    assert added.state is HoldState.FROZEN
    assert isinstance(decided, Backjob)
    assert added.hold_id in decided.hold_ids
    with engine.connect() as connection:
        assert state_of(connection, added.hold_id) is HoldState.BUFFERED
        assert reconcile(connection) == []
