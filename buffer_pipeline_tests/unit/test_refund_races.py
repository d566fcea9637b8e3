"""Refunds that race with each other, with an unfreeze and with a backjob."""

from sqlalchemy import Engine

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import request_backjob
from buffer_pipeline.errors import BackjobRefused, InsufficientFunds, StateRefused
from buffer_pipeline.freeze import unfreeze_hold
from buffer_pipeline.hold import HoldState
from buffer_pipeline.refund import Refund
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    JOB,
    NOON,
    PAYER,
    Wallet,
    all_at_once,
    one_after_the_other,
    place_hold,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.support.refunds import freeze_for_risk, refund


def test_the_same_refund_raced_moves_money_once(engine: Engine) -> None:
    """All calls return the same refund."""
    with engine.begin() as connection:
        hold_id = place_hold(connection, state=HoldState.FROZEN)

    outcomes = all_at_once(engine, *[lambda connection: refund(connection, hold_id, amount="400.00")] * 4)

    done = [outcome for outcome in outcomes if isinstance(outcome, Refund)]
    assert sorted(one.replayed for one in done) == [False, True, True, True]
    assert len({one.transaction_id for one in done}) == 1
    with engine.connect() as connection:
        assert wallet_of(connection, PAYER) == Wallet(balance_minor=40_000)
        assert reconcile(connection) == []


def test_refunds_raced_take_no_more_than_there_is(engine: Engine) -> None:
    """Of two parts that exceed the whole together, one is refused."""
    with engine.begin() as connection:
        hold_id = place_hold(connection, state=HoldState.FROZEN)

    first, refusal = one_after_the_other(
        engine,
        lambda connection: refund(connection, hold_id, amount="600.00"),
        lambda connection: refund(connection, hold_id, amount="600.00", reference="refund-2"),
    )

    assert first.left_minor == 40_000
    assert isinstance(refusal, InsufficientFunds)
    assert "400.00 that it holds" in str(refusal)


def test_a_refund_and_an_unfreezing_raced(engine: Engine) -> None:
    """After an unfreeze nothing is refunded. After a whole refund nothing is buffered."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        frozen = freeze_for_risk(connection, hold_id)

    _, refusal = one_after_the_other(
        engine,
        lambda connection: unfreeze_hold(
            connection, freeze_id=frozen.freeze_id, by=ADMIN, reason="fine", now=NOON
        ),
        lambda connection: refund(connection, hold_id),
    )

    assert isinstance(refusal, StateRefused)
    assert refusal.state == HoldState.BUFFERED
    with engine.connect() as connection:
        assert wallet_of(connection, PAYER) == Wallet()


def test_a_backjob_after_a_refund_finds_nothing(engine: Engine) -> None:
    """A request that waits for a whole refund is refused. A request before it refuses the refund."""
    with engine.begin() as connection:
        hold_id = place_hold(connection, state=HoldState.FROZEN)
        other = place_hold(connection, state=HoldState.FROZEN, job="job-9")

    one_after_the_other(
        engine,
        lambda connection: refund(connection, hold_id),
        lambda connection: request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON),
    )
    opened, refusal = one_after_the_other(
        engine,
        lambda connection: request_backjob(connection, job="job-9", by=PAYER, reason="hm", now=NOON),
        lambda connection: refund(connection, other, reference="refund-2"),
    )

    assert isinstance(refusal, BackjobRefused)
    assert refusal.backjob_id == opened.backjob_id
    with engine.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.REFUNDED
        assert state_of(connection, other) is HoldState.FROZEN
        assert reconcile(connection) == []
