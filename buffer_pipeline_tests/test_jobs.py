"""A job has one payer, and an open backjob keeps back what comes to its job later."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select

from buffer_pipeline.backjob import (
    Backjob,
    approve_backjob,
    reject_backjob,
    request_backjob,
    withdraw_backjob,
)
from buffer_pipeline.errors import JobConflict, NotAllowed, NotFound
from buffer_pipeline.hold import HoldState
from buffer_pipeline.intake import AddedHold, Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.tables import hold_freeze, job
from buffer_pipeline_tests.builders import (
    ADMIN,
    DAY_7,
    JOB,
    PAYEE,
    PAYER,
    Wallet,
    all_at_once,
    books,
    bring_in,
    hold_row,
    notifications_of,
    one_behind_the_other,
    open_freezes,
    place_hold,
    release_date_of,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.conftest import NOON
from buffer_pipeline_tests.runs import corrupt

OTHER_PAYER = "client-4"
DAY = timedelta(days=1)

Add = Callable[..., AddedHold]


def add_one(connection: Connection, **changes: Any) -> AddedHold:
    """Hold an earning of 10.00 PHP on JOB by itself, with some of it changed."""
    return add_pending_earnings(connection, **vars(earning(**changes)), now=changes.get("held_at") or NOON)


def add_in_many(connection: Connection, **changes: Any) -> AddedHold:
    """Hold the same as one of many, and raise its refusal."""
    (outcome,) = add_many_pending_earnings(
        connection, [earning(**changes)], now=changes.get("held_at") or NOON
    )
    if not isinstance(outcome, AddedHold):
        raise outcome
    return outcome


WAYS = pytest.mark.parametrize("add", [add_one, add_in_many])


def earning(**changes: Any) -> Earning:
    """Return an earning of 10.00 PHP on JOB, with some of it changed."""
    content = {"reference": "late", "job": JOB, "payee": PAYEE, "payer": PAYER, "amount": "10.00"}
    return Earning(**{"currency": "PHP", **content, **changes})


def request(connection: Connection, **changes: Any) -> Backjob:
    """Ask for a backjob on JOB as its client, with some of it changed."""
    asked = {"job": JOB, "by": PAYER, "reason": "not as agreed", "now": NOON}
    return request_backjob(connection, **{**asked, **changes})


# One payer


@WAYS
def test_an_earning_of_another_payer_is_refused(connection: Connection, add: Add) -> None:
    """A job is of whoever paid its first hold; the refusal names the job and both, and writes nothing."""
    place_hold(connection)
    place_hold(connection, job="job-9", payer=OTHER_PAYER)
    before = books(connection)

    with pytest.raises(JobConflict) as refusal:
        add(connection, payer=OTHER_PAYER)

    assert str(refusal.value) == "job 'job-8': its payer is 'client-3', not 'client-4'"
    assert refusal.value.job == JOB
    assert books(connection) == before


@WAYS
def test_a_settled_job_keeps_its_payer(connection: Connection, add: Add) -> None:
    """Also when nothing waits on it any more."""
    place_hold(connection, state=HoldState.RELEASED)

    with pytest.raises(JobConflict):
        add(connection, payer=OTHER_PAYER)

    assert add(connection).state is HoldState.BUFFERED


def test_of_many_only_the_other_payers_are_refused(connection: Connection) -> None:
    """The first to name a new job has it; the refused ones keep nothing out."""
    named = [
        earning(reference="first"),
        earning(reference="other", payer=OTHER_PAYER),
        earning(reference="third", payee="worker-18"),
        earning(reference="own job", job="job-9", payer=OTHER_PAYER),
        earning(reference="other", payer=OTHER_PAYER),
    ]

    outcomes = add_many_pending_earnings(connection, named, now=NOON)

    assert [type(outcome) for outcome in outcomes] == [
        AddedHold,
        JobConflict,
        AddedHold,
        AddedHold,
        JobConflict,
    ]
    jobs = connection.execute(select(job.c.job, job.c.payer).order_by(job.c.job)).all()
    assert [tuple(row) for row in jobs] == [("job-8", PAYER), ("job-9", OTHER_PAYER)]
    assert wallet_of(connection, PAYEE) == Wallet(pending_earnings_minor=2_000)
    assert reconcile(connection) == []


@pytest.mark.parametrize("ways", [(add_one, add_one), (add_one, add_in_many), (add_in_many, add_in_many)])
@pytest.mark.parametrize("known", [False, True])
def test_two_payers_raced_for_a_new_job_leave_it_to_one(
    engine: Engine, ways: tuple[Add, Add], known: bool
) -> None:
    """One has the job and is held, the other is refused, whether or not they have wallets."""
    with engine.begin() as connection:
        bring_in(connection, PHP=2)
        if known:
            for payer in (PAYER, OTHER_PAYER):
                place_hold(connection, job=f"job-of-{payer}", payer=payer)
    first, second = ways

    outcomes = all_at_once(
        engine,
        lambda connection: first(connection, reference="one"),
        lambda connection: second(connection, reference="two", payer=OTHER_PAYER),
    )

    added = [outcome for outcome in outcomes if isinstance(outcome, AddedHold)]
    assert len(added) == 1
    assert sum(isinstance(outcome, JobConflict) for outcome in outcomes) == 1
    with engine.connect() as connection:
        owner = connection.scalar(select(job.c.payer).where(job.c.job == JOB))
        assert owner == (PAYER if outcomes[0] is added[0] else OTHER_PAYER)
        assert reconcile(connection) == []


@pytest.mark.parametrize(("first", "second"), [(add_one, add_in_many), (add_in_many, add_one)])
def test_who_waits_for_a_new_job_finds_its_payer(engine: Engine, first: Add, second: Add) -> None:
    """Behind another transaction that makes the job, its payer counts once that one commits."""
    with engine.begin() as connection:
        bring_in(connection, PHP=2)

    _, refusal = one_behind_the_other(
        engine,
        lambda connection: first(connection, reference="one"),
        lambda connection: second(connection, reference="two", payer=OTHER_PAYER),
    )

    assert isinstance(refusal, JobConflict)
    assert refusal.job == JOB


def test_a_job_that_was_rolled_back_is_anybodys(engine: Engine) -> None:
    """A payer whose earning was rolled back has no job by it."""
    with engine.connect() as connection, connection.begin() as transaction:
        add_one(connection)
        transaction.rollback()

    with engine.begin() as connection:
        added = add_one(connection, payer=OTHER_PAYER)

    assert not added.replayed


def test_a_backjob_by_the_jobs_payer(connection: Connection) -> None:
    """Named, the job's payer is heard; `by` may be somebody who writes for them."""
    hold_id = place_hold(connection)

    opened = request(connection, payer=PAYER, by="agent-5")

    assert opened.hold_ids == (hold_id,)


def test_a_backjob_for_another_payer_is_refused(connection: Connection) -> None:
    """A client cannot freeze what somebody else paid; the refusal names the job, and nothing is frozen."""
    place_hold(connection)
    before = books(connection)

    with pytest.raises(NotAllowed) as refusal:
        request(connection, payer=OTHER_PAYER)

    assert str(refusal.value) == "job 'job-8': its payer is 'client-3', not 'client-4'"
    assert refusal.value.job == JOB
    assert books(connection) == before


def test_a_backjob_stops_only_what_its_jobs_payer_paid(engine: Engine, superuser_url: str) -> None:
    """Jobs from before revision 0014 may have holds of several payers: the first one's are the job's."""
    with engine.begin() as connection:
        own = place_hold(connection)
        others = place_hold(connection, job="job-9", payer=OTHER_PAYER)
    corrupt(superuser_url, f"UPDATE buffer.hold SET job = '{JOB}' WHERE hold_id = {others}")

    with engine.begin() as connection:
        opened = request_backjob(connection, job=JOB, by=PAYER, reason="it leaks", now=NOON)

    assert opened.hold_ids == (own,)
    with engine.connect() as connection:
        assert state_of(connection, others) is HoldState.BUFFERED


def test_an_unknown_job_has_no_payer(connection: Connection) -> None:
    """Of a job without a hold nothing is said but that."""
    with pytest.raises(NotFound) as refusal:
        request(connection, job="job-404", payer=PAYER)

    assert (str(refusal.value), refusal.value.job) == ("job 'job-404': has no hold", "job-404")


# What comes later


@WAYS
def test_an_earning_during_an_open_backjob_is_frozen_by_it(connection: Connection, add: Add) -> None:
    """Its payee is told that it is pending and frozen, and the backjob has it; its money waits."""
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
def test_a_frozen_earning_added_again_is_as_it_stands(connection: Connection, add: Add) -> None:
    """A repetition says FROZEN and writes nothing."""
    place_hold(connection)
    request(connection)
    added = add(connection)
    before = books(connection)

    again = add(connection)

    assert (again.hold_id, again.state, again.replayed) == (added.hold_id, HoldState.FROZEN, True)
    assert books(connection) == before


@WAYS
def test_an_earning_whose_window_is_closed_is_not_frozen(connection: Connection, add: Add) -> None:
    """What could not be asked back is not kept back either: it is due at once."""
    place_hold(connection)
    request(connection)

    added = add(connection, held_at=NOON, release_date=NOON)

    assert added.state is HoldState.BUFFERED
    assert open_freezes(connection, added.hold_id) == []
    assert notifications_of(connection, PAYEE)[-1] == "PAYMENT_PENDING"


@WAYS
def test_an_earning_of_another_job_is_not_frozen(connection: Connection, add: Add) -> None:
    """An open backjob is of one job."""
    place_hold(connection)
    request(connection)

    added = add(connection, job="job-9")

    assert added.state is HoldState.BUFFERED


def test_of_many_those_on_the_job_are_frozen(connection: Connection) -> None:
    """In one call each job's own backjob counts, and nobody is told where nobody is to be told."""
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
    """Rejected, it is back with the cooldown on top; withdrawn, on its date; approved, refunded."""
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
    """Where the backjob is approved that was open when it came in."""
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
    """What comes when nothing is open waits as always."""
    place_hold(connection)
    opened = request(connection)
    decide(connection, backjob_id=opened.backjob_id, by=ADMIN, reason="looked at it", now=NOON)

    added = add(connection)

    assert added.state is HoldState.BUFFERED
    assert open_freezes(connection, added.hold_id) == []


@WAYS
def test_an_earning_behind_a_request_is_frozen(engine: Engine, add: Add) -> None:
    """An earning that waits for a request's job finds its backjob open."""
    with engine.begin() as connection:
        place_hold(connection)

    opened, added = one_behind_the_other(engine, request, add)

    assert isinstance(added, AddedHold)
    assert added.hold_id not in opened.hold_ids
    assert added.state is HoldState.FROZEN
    with engine.connect() as connection:
        assert open_freezes(connection, added.hold_id) == ["BACKJOB"]
        assert reconcile(connection) == []


@WAYS
def test_a_request_behind_an_earning_freezes_it(engine: Engine, add: Add) -> None:
    """A request that waits for an earning on its job has that among its holds."""
    with engine.begin() as connection:
        place_hold(connection)

    added, opened = one_behind_the_other(engine, add, request)

    assert isinstance(opened, Backjob)
    assert added.hold_id in opened.hold_ids
    assert added.state is HoldState.BUFFERED
    with engine.connect() as connection:
        assert state_of(connection, added.hold_id) is HoldState.FROZEN
        assert reconcile(connection) == []


@WAYS
def test_earnings_and_a_request_at_once_leave_none_out(engine: Engine, add: Add) -> None:
    """Whoever comes first, no hold in its window waits unfrozen beside an open backjob."""
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
def test_an_earning_behind_a_decision_is_not_its(
    engine: Engine, add: Add, decide: Callable[..., Backjob], state: HoldState
) -> None:
    """An earning that waits while a backjob is decided comes in behind it, and is buffered."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        backjob_id = request(connection).backjob_id

    _, added = one_behind_the_other(
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
def test_a_decision_behind_an_earning_has_it(engine: Engine, add: Add) -> None:
    """A decision that waits for an earning, frozen by its backjob, decides on that too."""
    with engine.begin() as connection:
        place_hold(connection)
        backjob_id = request(connection).backjob_id

    added, decided = one_behind_the_other(
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
