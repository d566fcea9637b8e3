"""A release run with concurrent transactions: it skips what they have locked, and every hold is paid once."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, ExceptionContext, event, select, text

from buffer_pipeline.database import make_engine
from buffer_pipeline.hold import HoldState
from buffer_pipeline.release import ReleaseBatch
from buffer_pipeline.tables import unsettled_hold, wallet
from buffer_pipeline_tests.support.builders import (
    PAYEE,
    WAIT_SECONDS_MAX,
    Wallet,
    state_of,
    waiting_for_a_lock,
    wallet_of,
)
from buffer_pipeline_tests.support.release_drain import drain, place, place_many, wait_until


def test_locked_hold_is_skipped_and_left_to_the_next_run(engine: Engine, other: Connection) -> None:
    """It does not stop the run and is not lost."""
    locked, *_ = place(engine, 3)
    other.execute(select(unsettled_hold).where(unsettled_hold.c.hold_id == locked).with_for_update())

    run = drain(engine)

    assert run.holds_released == 2
    assert state_of(other, locked) is HoldState.BUFFERED
    other.rollback()
    assert drain(engine).holds_released == 1


@pytest.mark.parametrize("options", [{}, {"limit": 2_000}, {"workers": 2}, {"batch_limit": 100}])
def test_wallet_locked_forever_delays_only_its_own_holds(
    engine: Engine, other: Connection, options: dict[str, int]
) -> None:
    """A run releases the holds of all other wallets."""
    place_many(engine, 1_500, payees=300)
    other.execute(select(wallet).where(wallet.c.owner == "worker-150").with_for_update())
    run = drain(engine, **options)

    assert run.holds_released == 1_495
    with engine.connect() as connection:
        assert wallet_of(connection, "worker-150") == Wallet(pending_earnings_minor=5_000)
        assert wallet_of(connection, "worker-151") == Wallet(balance_minor=5_000)
    other.rollback()
    assert drain(engine).holds_released == 5


def test_briefly_locked_wallet_is_released_to_by_the_same_run(engine: Engine, other: Connection) -> None:
    """The run times out on a locked wallet, skips it, and returns to it."""
    place(engine, 3)
    place(engine, 1, payee="worker-18")
    ended: list[str | None] = []

    @event.listens_for(engine, "handle_error")
    def note(context: ExceptionContext) -> None:
        ended.append(getattr(context.original_exception, "sqlstate", None))

    other.execute(select(wallet).where(wallet.c.owner == PAYEE).with_for_update())

    run = drain(engine, on_batch=lambda _connection, _batch: other.rollback())

    assert ended == ["55P03"]
    assert run.holds_released == 4


def test_hold_that_is_unlocked_during_a_run_is_released(engine: Engine, other: Connection) -> None:
    """A run retries skipped holds as long as it releases any."""
    locked, *_ = place(engine, 3)
    other.execute(select(unsettled_hold).where(unsettled_hold.c.hold_id == locked).with_for_update())

    run = drain(engine, on_batch=lambda _connection, _batch: other.rollback())

    assert run.holds_released == 3
    assert state_of(other, locked) is HoldState.RELEASED


def test_deadlock_victim_is_retried(engine: Engine, superuser_url: str) -> None:
    """The batch starts again and skips locked holds."""
    (locked,) = place(engine, 1)
    (free,) = place(engine, 1, payee="worker-18")
    ended: list[str | None] = []

    @event.listens_for(engine, "handle_error")
    def note(context: ExceptionContext) -> None:
        ended.append(getattr(context.original_exception, "sqlstate", None))

    def wait_once(connection: Connection, _batch: ReleaseBatch) -> None:
        if not ended:
            connection.execute(text("SELECT pg_advisory_xact_lock(17)"))

    superuser_engine = make_engine(superuser_url)
    with (
        ThreadPoolExecutor(1) as threads,
        engine.connect() as watcher,
        superuser_engine.connect() as platform,
    ):
        # The platform's transaction waits longer, so that the batch detects the deadlock first.
        platform.execute(text("SET LOCAL deadlock_timeout = '20s'"))
        platform.execute(text("SELECT pg_advisory_xact_lock(17)"))
        # The batch itself never waits, so the wait is the caller's.
        running = threads.submit(drain, engine, limit=10, on_batch=wait_once)
        wait_until(lambda: waiting_for_a_lock(watcher), "the run comes to the lock")
        platform.execute(select(unsettled_hold).where(unsettled_hold.c.hold_id == locked).with_for_update())
        run = running.result(timeout=WAIT_SECONDS_MAX)
        platform.rollback()
    superuser_engine.dispose()

    assert ended == ["40P01"]
    assert run.holds_released == 1
    with engine.connect() as connection:
        assert state_of(connection, free) is HoldState.RELEASED
    assert drain(engine).holds_released == 1
    with engine.connect() as connection:
        assert wallet_of(connection, PAYEE) == Wallet(balance_minor=100_000)
