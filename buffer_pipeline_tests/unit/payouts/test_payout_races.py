"""Two verbs on payouts at the same time leave what one after the other would leave."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, select, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.errors import PaymentBufferError, PayoutRefused
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.owner_freeze import freeze_owner
from buffer_pipeline.payouts import (
    approve_payout_batch,
    cancel_payout,
    cancel_payout_batch,
    request_scheduled_payouts,
    send_payout_batch,
    set_payout_schedule,
    show_destination,
)
from buffer_pipeline.release import release_matured
from buffer_pipeline.tables import payout, payout_batch
from buffer_pipeline.wallet import withdraw
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    NOON,
    PAYEE,
    WAIT_SECONDS_MAX,
    Wallet,
    all_at_once,
    one_after_the_other,
    place_hold,
    wallet_of,
)
from buffer_pipeline_tests.support.debts import place_released, take_back
from buffer_pipeline_tests.support.payouts import (
    APPROVER,
    DAY_3,
    MAKER,
    give,
    make_batch,
    mark,
    payable,
    request,
    said,
    send_batch,
    to_iban,
)
from buffer_pipeline_tests.support.processes import wait_until, waiting
from buffer_pipeline_tests.support.scale import count

ROUNDS: Final = count("RACE_ROUNDS", part=5, whole=50)
Step = Callable[[Connection], Any]


def refused(outcomes: list[Any]) -> int:
    """Return how many were refused."""
    return sum(isinstance(outcome, PaymentBufferError) for outcome in outcomes)


def sound(engine: Engine) -> None:
    """Require books that break no invariant."""
    with engine.connect() as connection:
        assert reconcile(connection) == []


def pay_out(connection: Connection, **changes: Any) -> Any:
    """Request 600 of 1000 pesos."""
    return request(connection, amount="600.00", **changes)


def take_out(connection: Connection) -> Any:
    """Withdraw 600 of 1000 pesos."""
    return withdraw(connection, owner=PAYEE, amount="600", currency="PHP", reference="bank-1", now=NOON)


def test_request_that_waits_for_a_claw_back_sees_its_debt(engine: Engine) -> None:
    """The request is refused, although nothing was owed when it began."""
    with engine.begin() as connection:
        hold_id = place_released(connection, spent="1000.00")
        to_iban(connection)

    def asks() -> Any:
        with engine.begin() as connection:
            return request(connection)

    with engine.connect() as connection, ThreadPoolExecutor(1) as threads:
        take_back(connection, hold_id)
        give(connection)
        asking = threads.submit(asks)
        wait_until(lambda: waiting(engine) == 1 or asking.done())
        connection.commit()

        with pytest.raises(PayoutRefused, match="owes a debt"):
            asking.result()
    sound(engine)


@pytest.mark.parametrize("second", [pay_out, take_out])
def test_balance_is_paid_out_once(engine: Engine, second: Step) -> None:
    """Of two who take more than the half of it, one is refused."""
    with engine.begin() as connection:
        payable(connection)

    outcomes = all_at_once(engine, pay_out, second)

    assert refused(outcomes) == 1
    with engine.connect() as connection:
        assert wallet_of(connection, PAYEE) == Wallet(balance_minor=40_000)
    sound(engine)


def test_same_reference_at_once_is_one_payout(engine: Engine) -> None:
    """Both get it, and one of them as a replay."""
    with engine.begin() as connection:
        payable(connection)

    outcomes = all_at_once(engine, *[lambda c: pay_out(c, reference="payday-1")] * 2)

    assert sorted(
        outcome.replayed for outcome in outcomes if not isinstance(outcome, PaymentBufferError)
    ) == [
        False,
        True,
    ]
    sound(engine)


def test_release_and_payout_of_one_wallet(engine: Engine) -> None:
    """Both happen, and the balances follow each other."""
    for number in range(ROUNDS):
        owner = f"worker-{number}"
        with engine.begin() as connection:
            payable(connection, owner)
            place_hold(connection, payee=owner, job=f"job-{number}")

        outcomes = all_at_once(
            engine,
            lambda c, owner=owner: request(c, owner, everything=True),  # type: ignore[misc]
            lambda c: release_matured(c, now=DAY_7, batch_limit=10),
        )

        assert refused(outcomes) == 0
    sound(engine)


def test_two_batches_share_what_is_requested(engine: Engine) -> None:
    """No payout is in both. One of them may find nothing."""
    for number in range(ROUNDS):
        with engine.begin() as connection:
            for _ in range(5):
                payable(connection, f"worker-{number}", amount="100.00")
                request(connection, f"worker-{number}")

        outcomes = all_at_once(engine, *[make_batch] * 2)

        made = [outcome for outcome in outcomes if not isinstance(outcome, PaymentBufferError)]
        assert sum(batch.payouts for batch in made) == 5
    sound(engine)


def test_batch_passes_over_a_payout_that_is_cancelled(engine: Engine) -> None:
    """It waits for nobody."""
    with engine.begin() as connection:
        payable(connection)
        first, second = request(connection).payout_id, request(connection).payout_id

    _, batch = one_after_the_other(
        engine,
        lambda c: cancel_payout(c, payout_id=first, by=PAYEE, reason="no", now=DAY_3),
        make_batch,
    )

    assert not isinstance(batch, PaymentBufferError)
    assert batch.payouts == 1
    with engine.connect() as connection:
        states = dict(connection.execute(select(payout.c.payout_id, payout.c.state)).tuples().all())
    assert states == {first: "CANCELLED", second: "BATCHED"}
    sound(engine)


def batch_of_two(engine: Engine, *, approved: bool) -> tuple[int, int]:
    """Make a batch of two payouts; return its id and the first payout."""
    with engine.begin() as connection:
        payable(connection)
        payout_id = request(connection).payout_id
        request(connection)
        batch = make_batch(connection)
        if approved:
            approve_payout_batch(connection, payout_batch_id=batch.payout_batch_id, by=APPROVER, now=DAY_3)
    return batch.payout_batch_id, payout_id


def steps_on(batch_id: int, payout_id: int) -> dict[str, Step]:
    """Return the verbs on a batch and on a payout of it."""
    return {
        "approve": lambda c: approve_payout_batch(c, payout_batch_id=batch_id, by=APPROVER, now=DAY_3),
        "send": lambda c: send_payout_batch(c, payout_batch_id=batch_id, by=MAKER, now=DAY_3),
        "cancel": lambda c: cancel_payout_batch(
            c, payout_batch_id=batch_id, by=MAKER, reason="no", now=DAY_3
        ),
        "cancel a payout": lambda c: cancel_payout(c, payout_id=payout_id, by=PAYEE, reason="no", now=DAY_3),
    }


@pytest.mark.parametrize(
    ("first", "second", "approved", "may_be_refused"),
    [
        ("approve", "cancel", False, 1),
        ("approve", "send", False, 1),
        ("approve", "cancel a payout", False, 0),
        ("send", "cancel", True, 1),
        ("send", "cancel a payout", True, 1),
        ("cancel", "cancel a payout", True, 0),
        ("send", "send", True, 0),
        ("approve", "approve", False, 0),
    ],
)
def test_decisions_at_once(
    engine: Engine, first: str, second: str, approved: bool, may_be_refused: int
) -> None:
    """One after the other in either order: no deadlock, and no payout is both sent and cancelled."""
    for _ in range(ROUNDS):
        steps = steps_on(*batch_of_two(engine, approved=approved))

        outcomes = all_at_once(engine, steps[first], steps[second])

        assert refused(outcomes) <= may_be_refused
        assert all(
            isinstance(outcome, PayoutRefused)
            for outcome in outcomes
            if isinstance(outcome, PaymentBufferError)
        )
        with engine.begin() as connection:
            left = connection.scalars(
                select(payout_batch.c.payout_batch_id).where(payout_batch.c.state.in_(["MADE", "APPROVED"]))
            ).all()
            for batch_id in left:
                cancel_payout_batch(connection, payout_batch_id=batch_id, by=MAKER, reason="next", now=DAY_3)
            waiting = connection.scalars(
                select(payout.c.payout_id).where(payout.c.state == "REQUESTED")
            ).all()
            for payout_id in waiting:
                cancel_payout(connection, payout_id=payout_id, by=MAKER, reason="next", now=DAY_3)
    sound(engine)


def run(engine: Engine, step: Step) -> Any:
    """Return what a verb in a transaction of its own returns, or its refusal."""
    try:
        with engine.begin() as connection:
            return step(connection)
    except PaymentBufferError as refusal:
        return refusal


@pytest.mark.parametrize("third", ["cancel", "cancel a payout"])
def test_sending_that_waits_for_the_approval_does_not_deadlock(engine: Engine, third: str) -> None:
    """Whoever sends has locked the payouts before it waits for the batch, as who cancels does."""
    steps = steps_on(*batch_of_two(engine, approved=False))

    with engine.connect() as approver, ThreadPoolExecutor(2) as threads:
        steps["approve"](approver)
        sending = threads.submit(run, engine, steps["send"])
        wait_until(lambda: waiting(engine) == 1 or sending.done())
        cancelling = threads.submit(run, engine, steps[third])
        wait_until(lambda: waiting(engine) == 2 or sending.done() or cancelling.done())
        approver.commit()
        sent, cancelled = (future.result(timeout=WAIT_SECONDS_MAX) for future in (sending, cancelling))

    assert not isinstance(sent, PaymentBufferError)
    assert isinstance(cancelled, PayoutRefused)
    sound(engine)


@pytest.mark.parametrize("late", ["cancel", "send"])
def test_decision_that_comes_after_the_sending_does_not_deadlock_with_a_file(
    engine: Engine, late: str
) -> None:
    """It has locked the payouts, and does not wait for the batch, which who imports the file has locked."""
    batch_id, payout_id = batch_of_two(engine, approved=True)
    steps = steps_on(batch_id, payout_id)
    lock = text("SELECT FROM buffer.payout_batch WHERE payout_batch_id = :batch_id FOR NO KEY UPDATE")

    def import_file(connection: Connection) -> Any:
        connection.execute(lock, {"batch_id": batch_id})
        wait_until(lambda: deciding.done() or waiting(engine) == 1)
        return mark(connection, batch, said(payout_id))

    with engine.connect() as sender, ThreadPoolExecutor(2) as threads:
        batch = steps["send"](sender)
        deciding = threads.submit(run, engine, steps[late])
        wait_until(lambda: waiting(engine) == 1 or deciding.done())
        importing = threads.submit(run, engine, import_file)
        wait_until(lambda: waiting(engine) == 2 or importing.done())
        sender.commit()
        decided, marked = (future.result(timeout=WAIT_SECONDS_MAX) for future in (deciding, importing))

    assert marked.paid == 1
    assert isinstance(decided, PayoutRefused) if late == "cancel" else decided.replayed
    sound(engine)


def test_owner_who_is_frozen_first_is_not_paid_out(engine: Engine) -> None:
    """The request waits for the freeze, and finds it."""
    with engine.begin() as connection:
        payable(connection)

    _, outcome = one_after_the_other(
        engine,
        lambda c: freeze_owner(c, owner=PAYEE, kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=NOON),
        pay_out,
    )

    assert isinstance(outcome, PayoutRefused)


def test_two_files_at_once(engine: Engine) -> None:
    """The one that comes second finds what the first one marked; the same file is refused."""
    with engine.begin() as connection:
        payable(connection)
        ids = [request(connection).payout_id for _ in range(3)]
        batch = send_batch(connection)
    lines = [said(ids[0]), said(ids[1], "RETURNED"), said(ids[2], "RETURNED")]

    outcomes = all_at_once(
        engine,
        lambda c: mark(c, batch, *lines, file_digest=b"1" * 32),
        lambda c: mark(c, batch, *lines[::-1], file_digest=b"2" * 32),
        lambda c: mark(c, batch, *lines, file_digest=b"1" * 32),
    )

    assert refused(outcomes) == 1
    marked = [outcome for outcome in outcomes if not isinstance(outcome, PaymentBufferError)]
    assert sorted((each.paid, each.returned) for each in marked) == [(0, 0), (1, 2)]
    sound(engine)


def test_schedules_run_twice_at_once(engine: Engine) -> None:
    """Each balance is requested once."""
    with engine.begin() as connection:
        for number in range(10):
            owner = f"worker-{number}"
            payable(connection, owner)
            set_payout_schedule(connection, owner=owner, schedule="DAILY", by=ADMIN, reason="asked", now=NOON)

    outcomes = all_at_once(engine, *[lambda c: request_scheduled_payouts(c, by="schedule", now=NOON)] * 3)

    assert refused(outcomes) == 0
    with engine.connect() as connection:
        assert len(connection.execute(select(payout)).all()) == 10
    sound(engine)


def test_destinations_set_at_once_are_two_versions(engine: Engine) -> None:
    """The second one waits, and counts."""
    all_at_once(engine, *[to_iban] * 3)

    with engine.connect() as connection:
        assert show_destination(connection, owner=PAYEE).version == 3
