"""A release run takes all that was due at its start, whatever happens beside it."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, ExceptionContext, event, select, text

from buffer_pipeline.database import make_engine
from buffer_pipeline.drain import ReleaseRun, drain_matured
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.hold import HoldState
from buffer_pipeline.release import ReleaseBatch
from buffer_pipeline.tables import batch, transaction, unsettled_hold, wallet
from buffer_pipeline_tests.builders import (
    DAY_7,
    PAYEE,
    WAIT_SECONDS_MAX,
    Wallet,
    books,
    hold_row,
    place_hold,
    row_counts,
    state_of,
    waiting_for_a_lock,
    wallet_of,
)

HOUR = timedelta(hours=1)


def drain(engine: Engine, **changes: Any) -> ReleaseRun:
    """Drain what is due at DAY_7, with some of it changed."""
    asked = {"due_by": DAY_7, "source": "a test", "clock": lambda _connection: DAY_7}
    return drain_matured(engine, **{**asked, **changes})


def place(engine: Engine, number: int, **changes: Any) -> list[int]:
    """Commit a number of holds; return their ids."""
    with engine.begin() as connection:
        return [place_hold(connection, **changes) for _ in range(number)]


@pytest.fixture
def other(engine: Engine) -> Iterator[Connection]:
    """A second session, for locks that stand in the run's way."""
    with engine.connect() as connection:
        yield connection


def test_run_drains_all_that_is_due(engine: Engine) -> None:
    """Batch after batch, each committed by itself, until nothing due is left."""
    place(engine, 7)
    place(engine, 1, currency="USD", amount="5.00")

    run = drain(engine, batch_limit=3)

    assert (run.holds_released, run.batches, run.dry_run) == (8, 3, False)
    assert run.amounts_minor == {"PHP": 700_000, "USD": 500}
    with engine.connect() as connection:
        assert wallet_of(connection, PAYEE) == Wallet(balance_minor=700_000)
        rows = connection.execute(select(batch.c.source, batch.c.due_by)).all()
        assert [tuple(row) for row in rows] == [("a test", DAY_7)] * 3


def test_nothing_due_is_a_run_of_nothing(engine: Engine) -> None:
    """With nothing due a run writes nothing, not even a batch."""
    place(engine, 1, release_date=DAY_7 + HOUR)

    run = drain(engine)

    assert (run.holds_released, run.batches, run.amounts_minor) == (0, 0, {})
    with engine.connect() as connection:
        assert row_counts(connection)["batch"] == 0


def test_run_goes_by_its_cut_off(engine: Engine) -> None:
    """Due is what matured up to the cut-off; the books record the clock of each batch."""
    (due,) = place(engine, 1)
    (later,) = place(engine, 1, release_date=DAY_7 + timedelta(microseconds=1))

    drain(engine, clock=lambda _connection: DAY_7 + HOUR)

    with engine.connect() as connection:
        assert hold_row(connection, due)["settled_at"] == DAY_7 + HOUR
        assert state_of(connection, later) is HoldState.BUFFERED


def test_run_reads_the_databases_clock(engine: Engine) -> None:
    """Without a clock of its own a run records the time of the database."""
    (hold_id,) = place(engine, 1)
    with engine.connect() as connection:
        before = connection.execute(text("SELECT clock_timestamp()")).scalar_one()

    drain_matured(engine, due_by=DAY_7, source="a test")

    with engine.connect() as connection:
        after = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        assert before <= hold_row(connection, hold_id)["settled_at"] <= after


def test_holds_that_come_in_due_during_a_run_are_taken_too(engine: Engine) -> None:
    """A hold that is added behind the run's position, and is due, is left to no later run."""
    place(engine, 2)
    late: list[int] = []

    def add_one(_connection: Connection, _batch: ReleaseBatch) -> None:
        if not late:
            late.extend(place(engine, 1, release_date=DAY_7 - timedelta(days=2), payee="worker-18"))

    run = drain(engine, on_batch=add_one)

    assert run.holds_released == 3
    with engine.connect() as connection:
        assert state_of(connection, late[0]) is HoldState.RELEASED


def test_oldest_release_hour_goes_first_over_batches(engine: Engine) -> None:
    """Batches follow the release hours, so a run that is cut short leaves the youngest."""
    (newest,) = place(engine, 1, release_date=DAY_7)
    (oldest,) = place(engine, 1, release_date=DAY_7 - 5 * HOUR)
    (middle,) = place(engine, 1, release_date=DAY_7 - HOUR)
    order: list[int] = []

    def note(connection: Connection, released: ReleaseBatch) -> None:
        order.extend(
            connection.scalars(
                select(transaction.c.hold_id).where(transaction.c.batch_id == released.batch_id)
            )
        )

    drain(engine, batch_limit=1, on_batch=note)

    assert order == [oldest, middle, newest]


@pytest.mark.parametrize(("limit", "batches"), [(1, 1), (2, 1), (3, 2), (5, 3), (50, 3)])
def test_limit_ends_the_run(engine: Engine, limit: int, batches: int) -> None:
    """A run releases up to its limit to the hold; the next one takes the rest."""
    place(engine, 5)

    run = drain(engine, batch_limit=2, limit=limit)

    assert (run.holds_released, run.batches) == (min(limit, 5), batches)
    assert drain(engine).holds_released == 5 - run.holds_released


@pytest.mark.parametrize("name", ["limit", "batch_limit"])
@pytest.mark.parametrize("value", [0, -1])
def test_limit_below_one_is_refused(engine: Engine, name: str, value: int) -> None:
    """0 is not "no limit": a limit below 1 is refused before anything is released."""
    (hold_id,) = place(engine, 1)

    with pytest.raises(InvalidInput, match=f"{name} {value}: must be at least 1"):
        drain(engine, **{name: value})

    with engine.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.BUFFERED


def test_naive_cut_off_is_refused(engine: Engine) -> None:
    """A cut-off needs its zone."""
    with pytest.raises(InvalidInput, match=r"due_by .* no time zone"):
        drain(engine, due_by=datetime(2026, 3, 9))  # noqa: DTZ001 - it is what is refused


def test_dry_run_counts_like_a_real_one_and_changes_nothing(engine: Engine) -> None:
    """A dry run says what a run would release, over all its batches, and leaves every row."""
    place(engine, 5)
    with engine.connect() as connection:
        before = books(connection)

    dry = drain(engine, batch_limit=2, dry_run=True)

    with engine.connect() as connection:
        assert books(connection) == before
    real = drain(engine, batch_limit=2)
    assert dry.dry_run
    assert (dry.holds_released, dry.amounts_minor, dry.batches) == (5, {"PHP": 500_000}, 3)
    assert (real.holds_released, real.amounts_minor, real.batches) == (5, {"PHP": 500_000}, 3)


def test_real_run_beside_a_dry_one_releases_all(engine: Engine) -> None:
    """A dry run keeps no hold from a real run once its batch is counted."""
    place(engine, 5)
    beside: list[int] = []

    def release_for_real(_batch: ReleaseBatch) -> None:
        beside.append(drain(engine).holds_released)

    dry = drain(engine, dry_run=True, after_batch=release_for_real)

    assert dry.holds_released == 5
    assert beside == [5]


def test_dry_run_keeps_to_its_limit(engine: Engine) -> None:
    """A limit counts in a dry run as well."""
    place(engine, 5)

    assert drain(engine, batch_limit=2, limit=3, dry_run=True).holds_released == 3


def test_run_repeated_releases_nothing(engine: Engine) -> None:
    """A second run over the same cut-off finds nothing, and writes nothing."""
    place(engine, 3)
    drain(engine)
    with engine.connect() as connection:
        before = books(connection)

    again = drain(engine)

    assert again.holds_released == 0
    with engine.connect() as connection:
        assert books(connection) == before


def test_two_runs_at_once_pay_once(engine: Engine) -> None:
    """Overlapping runs share the work; every hold is paid exactly once."""
    for number in range(4):
        place(engine, 15, payee=f"worker-{number}")
    barrier = Barrier(2)

    def run() -> ReleaseRun:
        barrier.wait(timeout=WAIT_SECONDS_MAX)
        return drain(engine, batch_limit=4)

    with ThreadPoolExecutor(2) as threads:
        runs = [future.result() for future in [threads.submit(run) for _ in range(2)]]

    assert sum(one.holds_released for one in runs) == 60
    with engine.connect() as connection:
        assert [wallet_of(connection, f"worker-{number}") for number in range(4)] == [
            Wallet(balance_minor=1_500_000)
        ] * 4
        assert row_counts(connection)["transaction"] == 120


def test_locked_hold_is_passed_over_and_left_to_the_next_run(engine: Engine, other: Connection) -> None:
    """A hold that another transaction works on does not stop a run, and is not lost."""
    locked, *_ = place(engine, 3)
    other.execute(select(unsettled_hold).where(unsettled_hold.c.hold_id == locked).with_for_update())

    run = drain(engine)

    assert run.holds_released == 2
    assert state_of(other, locked) is HoldState.BUFFERED
    other.rollback()
    assert drain(engine).holds_released == 1


def test_hold_that_comes_free_during_a_run_is_taken_by_it(engine: Engine, other: Connection) -> None:
    """A run looks again at what it passed over, as long as it releases anything."""
    locked, *_ = place(engine, 3)
    other.execute(select(unsettled_hold).where(unsettled_hold.c.hold_id == locked).with_for_update())

    run = drain(engine, on_batch=lambda _connection, _batch: other.rollback())

    assert run.holds_released == 3
    assert state_of(other, locked) is HoldState.RELEASED


def test_run_cut_short_keeps_what_is_committed(engine: Engine) -> None:
    """A failure in the second batch loses that batch only; the next run takes the rest."""
    place(engine, 5)
    batches: list[ReleaseBatch] = []

    def fail_at_the_second(_connection: Connection, released: ReleaseBatch) -> None:
        batches.append(released)
        if len(batches) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drain(engine, batch_limit=2, on_batch=fail_at_the_second)

    with engine.connect() as connection:
        assert wallet_of(connection, PAYEE) == Wallet(balance_minor=200_000, pending_earnings_minor=300_000)
    assert drain(engine).holds_released == 3


def test_failure_that_is_no_deadlock_is_not_retried(engine: Engine) -> None:
    """Only what the database ended by itself is tried again."""
    place(engine, 1)
    attempts: list[ReleaseBatch] = []

    def fail(_connection: Connection, released: ReleaseBatch) -> None:
        attempts.append(released)
        raise RuntimeError("a broken plug")

    with pytest.raises(RuntimeError, match="a broken plug"):
        drain(engine, on_batch=fail)

    assert len(attempts) == 1


def test_deadlock_victim_is_tried_again(engine: Engine, superuser_url: str) -> None:
    """A batch that the database ends for a deadlock is begun anew, and passes over what is locked."""
    (locked,) = place(engine, 1)
    (free,) = place(engine, 1, payee="worker-18")
    ended: list[str | None] = []

    @event.listens_for(engine, "handle_error")
    def note(context: ExceptionContext) -> None:
        ended.append(getattr(context.original_exception, "sqlstate", None))

    superuser_engine = make_engine(superuser_url)
    with (
        ThreadPoolExecutor(1) as threads,
        engine.connect() as watcher,
        superuser_engine.connect() as platform,
    ):
        # The platform's transaction waits longer, so that the batch finds the deadlock first.
        platform.execute(text("SET LOCAL deadlock_timeout = '20s'"))
        platform.execute(select(wallet).where(wallet.c.owner == PAYEE).with_for_update())
        running = threads.submit(drain, engine)
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while not waiting_for_a_lock(watcher):
            assert time.monotonic() < deadline, "the run never came to the locked wallet"
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
