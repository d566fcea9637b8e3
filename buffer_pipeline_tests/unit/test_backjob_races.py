"""Decisions on a backjob that race with each other or with another freeze."""

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine, event

from buffer_pipeline.backjob import Backjob, approve_backjob, reject_backjob, withdraw_backjob
from buffer_pipeline.errors import BackjobRefused, FreezeRefused, StateRefused
from buffer_pipeline.freeze import Freeze, unfreeze_hold
from buffer_pipeline.hold import BackjobState, HoldState
from buffer_pipeline_tests.support.backjobs import DECISIONS, Decide, backjob_row, decide, freeze, request
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    NOON,
    PAYEE,
    PAYER,
    Wallet,
    all_at_once,
    one_after_the_other,
    open_freezes,
    place_hold,
    state_of,
    transactions_of,
    wallet_of,
)


@pytest.mark.parametrize("second", DECISIONS)
@pytest.mark.parametrize("first", DECISIONS)
def test_decision_after_another_is_refused(engine: Engine, first: Decide, second: Decide) -> None:
    """The second of two concurrent decisions finds the backjob decided."""
    with engine.begin() as connection:
        place_hold(connection)
        backjob_id = request(connection).backjob_id

    decided, refusal = one_after_the_other(
        engine,
        lambda connection: decide(connection, first, backjob_id),
        lambda connection: decide(connection, second, backjob_id),
    )

    assert isinstance(refusal, BackjobRefused)
    with engine.connect() as connection:
        assert backjob_row(connection, backjob_id)["state"] == decided.state


def test_one_of_concurrent_decisions_counts(engine: Engine) -> None:
    """Reject, approve and withdraw at the same time: money moves at most once."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        backjob_id = request(connection).backjob_id

    def deciding(decision: Decide) -> Callable[[Connection], Backjob]:
        return lambda connection: decide(connection, decision, backjob_id)

    outcomes = all_at_once(engine, *[deciding(decision) for decision in DECISIONS * 2])

    decided = [outcome for outcome in outcomes if isinstance(outcome, Backjob)]
    assert len(decided) == 1
    with engine.connect() as connection:
        refunded = decided[0].state is BackjobState.APPROVED
        assert wallet_of(connection, PAYER) == Wallet(balance_minor=100_000 if refunded else 0)
        assert wallet_of(connection, PAYEE) == Wallet(pending_earnings_minor=0 if refunded else 100_000)
        assert len(transactions_of(connection, hold_id)) == 1 + refunded


def test_partial_approval_after_a_whole_one_is_refused(engine: Engine) -> None:
    """The refusal says that the backjob is decided, not that money is missing."""
    with engine.begin() as connection:
        place_hold(connection)
        backjob_id = request(connection).backjob_id

    _, refusal = one_after_the_other(
        engine,
        lambda connection: decide(connection, approve_backjob, backjob_id),
        lambda connection: decide(connection, approve_backjob, backjob_id, amount="400.00"),
    )

    assert isinstance(refusal, BackjobRefused)


@pytest.mark.parametrize("amount", [None, "400.00"])
@pytest.mark.parametrize("first", DECISIONS)
def test_approval_overtaken_before_its_locks_is_refused(
    engine: Engine, first: Decide, amount: str | None
) -> None:
    """A backjob that is decided between an approval's first read and its locks stays as decided."""
    with engine.begin() as connection:
        place_hold(connection)
        backjob_id = request(connection).backjob_id
    overtaken: list[str] = []

    def overtake(_connection: object, _cursor: object, statement: str, *_others: object) -> None:
        if "-- Locks a job" in statement and not overtaken:
            overtaken.append(statement)
            with engine.begin() as other:
                decide(other, first, backjob_id)

    event.listen(engine, "before_cursor_execute", overtake)
    with pytest.raises(BackjobRefused), engine.begin() as connection:
        decide(connection, approve_backjob, backjob_id, amount=amount)

    assert overtaken


def test_freeze_after_an_approval_finds_the_hold_refunded(engine: Engine) -> None:
    """The freeze waits for the approval and is refused."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        backjob_id = request(connection).backjob_id

    _, refusal = one_after_the_other(
        engine,
        lambda connection: decide(connection, approve_backjob, backjob_id),
        lambda connection: freeze(connection, hold_id),
    )

    assert isinstance(refusal, StateRefused)
    assert refusal.state == HoldState.REFUNDED


@pytest.mark.parametrize("decision", [reject_backjob, withdraw_backjob])
def test_freeze_that_waits_for_a_decision_freezes_again(engine: Engine, decision: Decide) -> None:
    """It finds the hold buffered."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        backjob_id = request(connection).backjob_id

    _, frozen = one_after_the_other(
        engine,
        lambda connection: decide(connection, decision, backjob_id),
        lambda connection: freeze(connection, hold_id),
    )

    assert isinstance(frozen, Freeze)
    with engine.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.FROZEN
        assert open_freezes(connection, hold_id) == ["RISK"]


def test_approval_after_a_freeze_is_refused(engine: Engine) -> None:
    """An approval that waits for a freeze sees it and moves no money."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        backjob_id = request(connection).backjob_id

    _, refusal = one_after_the_other(
        engine,
        lambda connection: freeze(connection, hold_id),
        lambda connection: decide(connection, approve_backjob, backjob_id),
    )

    assert isinstance(refusal, FreezeRefused)
    with engine.connect() as connection:
        assert wallet_of(connection, PAYER) == Wallet()


@pytest.mark.parametrize("decision", [reject_backjob, withdraw_backjob])
def test_last_two_freezes_closed_at_once_resume_the_hold(engine: Engine, decision: Decide) -> None:
    """A backjob's end and a concurrent unfreeze: the hold is buffered by the second."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        other = freeze(connection, hold_id)
        backjob_id = request(connection).backjob_id

    def unfreeze(connection: Connection) -> Freeze:
        return unfreeze_hold(connection, freeze_id=other.freeze_id, by=ADMIN, reason="fine", now=NOON)

    one_after_the_other(engine, lambda connection: decide(connection, decision, backjob_id), unfreeze)

    with engine.connect() as connection:
        assert open_freezes(connection, hold_id) == []
        assert state_of(connection, hold_id) is HoldState.BUFFERED
