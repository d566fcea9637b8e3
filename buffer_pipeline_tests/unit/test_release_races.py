"""Releases that race with each other, with a backjob and with a freeze."""

from datetime import timedelta

from sqlalchemy import Connection, Engine

from buffer_pipeline.backjob import Backjob, request_backjob
from buffer_pipeline.errors import StateRefused, WindowClosed
from buffer_pipeline.freeze import Freeze, freeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.release import ReleaseBatch
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    JOB,
    PAYEE,
    PAYER,
    Wallet,
    all_at_once,
    one_after_the_other,
    place_hold,
    row_counts,
    state_of,
    transactions_of,
    wallet_of,
)
from buffer_pipeline_tests.support.releases import early, release_all

INSTANT = timedelta(microseconds=1)


def test_concurrent_releases_pay_once(engine: Engine) -> None:
    """They share the holds, and nobody is paid twice."""
    with engine.begin() as connection:
        holds = [place_hold(connection, payee=f"worker-{number % 5}") for number in range(40)]

    outcomes = all_at_once(engine, *[release_all] * 4)

    released = [outcome for outcome in outcomes if isinstance(outcome, ReleaseBatch)]
    assert sum(outcome.holds_released for outcome in released) == 40
    with engine.connect() as connection:
        assert all(state_of(connection, hold_id) is HoldState.RELEASED for hold_id in holds)
        for number in range(5):
            assert wallet_of(connection, f"worker-{number}") == Wallet(balance_minor=800_000)
        assert row_counts(connection)["transaction"] == 80
        assert row_counts(connection)["notification"] == 80


def test_release_skips_holds_of_a_concurrent_release(engine: Engine) -> None:
    """It does not wait for them."""
    with engine.begin() as connection:
        place_hold(connection)

    first, second = one_after_the_other(engine, release_all, release_all)

    assert first.holds_released == 1
    assert second == ReleaseBatch()


def request(connection: Connection) -> Backjob:
    """Request a backjob just before the window closes."""
    return request_backjob(connection, job=JOB, by=PAYER, reason="not as agreed", now=DAY_7 - INSTANT)


def test_backjob_after_a_release_comes_too_late(engine: Engine) -> None:
    """It waits for a hold that is being released and finds it settled."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    _, refusal = one_after_the_other(engine, release_all, request)

    assert isinstance(refusal, WindowClosed)
    with engine.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.RELEASED
        assert row_counts(connection)["backjob"] == 0


def test_release_after_a_backjob_leaves_the_hold(engine: Engine) -> None:
    """A release skips a hold that a backjob is freezing."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    _, released = one_after_the_other(engine, request, release_all)

    assert released == ReleaseBatch()
    with engine.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.FROZEN
        assert wallet_of(connection, PAYEE) == Wallet(pending_earnings_minor=100_000)


def test_release_and_backjob_at_once_leave_one_of_both(engine: Engine) -> None:
    """The hold is either released or frozen."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    def a_release(connection: Connection) -> object:
        return release_all(connection)

    released, requested = all_at_once(engine, a_release, request)

    assert isinstance(released, ReleaseBatch)
    with engine.connect() as connection:
        if released.holds_released:
            assert isinstance(requested, WindowClosed)
            assert state_of(connection, hold_id) is HoldState.RELEASED
        else:
            assert isinstance(requested, Backjob)
            assert state_of(connection, hold_id) is HoldState.FROZEN
        assert len(transactions_of(connection, hold_id)) == 1 + released.holds_released


def test_concurrent_early_releases_pay_once(engine: Engine) -> None:
    """By a payer, an admin and the hourly release."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    outcomes = all_at_once(
        engine,
        lambda connection: early(connection, hold_id=hold_id),
        lambda connection: early(connection, job=JOB, by=ADMIN, as_admin=True),
        release_all,
    )

    paid = [one for one in outcomes if isinstance(one, ReleaseBatch) and one.holds_released]
    assert len(paid) == 1
    with engine.connect() as connection:
        assert wallet_of(connection, PAYEE) == Wallet(balance_minor=100_000)
        assert row_counts(connection)["transaction"] == 2


def test_freeze_after_a_release_comes_too_late(engine: Engine) -> None:
    """An admin's freeze that waits for a release finds the hold settled."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    def freeze(connection: Connection) -> Freeze:
        return freeze_hold(
            connection, hold_id=hold_id, kind=FreezeKind.ADMIN, by=ADMIN, reason="wait", now=DAY_7
        )

    _, refusal = one_after_the_other(engine, release_all, freeze)

    assert isinstance(refusal, StateRefused)
    assert refusal.state == HoldState.RELEASED
