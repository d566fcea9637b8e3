"""A release run takes everything that was due at its start."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier

import pytest
from sqlalchemy import Connection, Engine, select, text

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.hold import HoldState
from buffer_pipeline.release import ReleaseBatch
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.release_run.worker_pool import ReleaseRun
from buffer_pipeline.tables import batch, transaction
from buffer_pipeline_tests.support.builders import (
    DAY_7,
    PAYEE,
    WAIT_SECONDS_MAX,
    Wallet,
    books,
    hold_row,
    row_counts,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.support.release_drain import drain, place

HOUR = timedelta(hours=1)


def test_run_drains_all_that_is_due(engine: Engine) -> None:
    """Batch after batch, each with its own commit, until nothing due is left."""
    place(engine, 7)
    place(engine, 1, currency="USD", amount="5.00")

    run = drain(engine, batch_limit=3)

    assert (run.holds_released, run.batches, run.dry_run) == (8, 3, False)
    assert run.amounts_minor == {"PHP": 700_000, "USD": 500}
    with engine.connect() as connection:
        assert wallet_of(connection, PAYEE) == Wallet(balance_minor=700_000)
        rows = connection.execute(select(batch.c.source, batch.c.due_by)).all()
        assert [tuple(row) for row in rows] == [("a test", DAY_7)] * 3


def test_run_without_due_holds_writes_nothing(engine: Engine) -> None:
    """Not even a batch."""
    place(engine, 1, release_date=DAY_7 + HOUR)

    run = drain(engine)

    assert (run.holds_released, run.batches, run.amounts_minor) == (0, 0, {})
    with engine.connect() as connection:
        assert row_counts(connection)["batch"] == 0


def test_run_uses_its_cut_off(engine: Engine) -> None:
    """It releases what matured by the cut-off. The books record the clock of each batch."""
    (due,) = place(engine, 1)
    (later,) = place(engine, 1, release_date=DAY_7 + timedelta(microseconds=1))

    drain(engine, clock=lambda _connection: DAY_7 + HOUR)

    with engine.connect() as connection:
        assert hold_row(connection, due)["settled_at"] == DAY_7 + HOUR
        assert state_of(connection, later) is HoldState.BUFFERED


def test_run_reads_the_databases_clock(engine: Engine) -> None:
    """Without a clock argument, a run records the database's time."""
    (hold_id,) = place(engine, 1)
    with engine.connect() as connection:
        before = connection.execute(text("SELECT clock_timestamp()")).scalar_one()

    release_all_due(engine, due_by=DAY_7, source="a test")

    with engine.connect() as connection:
        after = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        assert before <= hold_row(connection, hold_id)["settled_at"] <= after


def test_holds_that_become_due_during_a_run_are_released(engine: Engine) -> None:
    """Even a due hold added before the position that the run has reached."""
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
    """Batches follow the release hours, so an interrupted run leaves the newest."""
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
    """A run releases exactly its limit; the next one releases the rest."""
    place(engine, 5)

    run = drain(engine, batch_limit=2, limit=limit)

    assert (run.holds_released, run.batches) == (min(limit, 5), batches)
    assert drain(engine).holds_released == 5 - run.holds_released


@pytest.mark.parametrize("name", ["limit", "batch_limit"])
@pytest.mark.parametrize("value", [0, -1])
def test_limit_below_one_is_refused(engine: Engine, name: str, value: int) -> None:
    """0 does not mean "no limit". Nothing is released."""
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
    """It reports what a real run would release in all its batches, and leaves every row."""
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


def test_real_run_during_a_dry_run_releases_everything(engine: Engine) -> None:
    """A dry run keeps no lock after counting a batch."""
    place(engine, 5)
    beside: list[int] = []

    def release_for_real(_batch: ReleaseBatch) -> None:
        beside.append(drain(engine).holds_released)

    dry = drain(engine, dry_run=True, after_batch=release_for_real)

    assert dry.holds_released == 5
    assert beside == [5]


def test_dry_run_respects_its_limit(engine: Engine) -> None:
    """A limit counts in a dry run as well."""
    place(engine, 5)

    assert drain(engine, batch_limit=2, limit=3, dry_run=True).holds_released == 3


def test_run_repeated_releases_nothing(engine: Engine) -> None:
    """A second run with the same cut-off finds nothing and writes nothing."""
    place(engine, 3)
    drain(engine)
    with engine.connect() as connection:
        before = books(connection)

    again = drain(engine)

    assert again.holds_released == 0
    with engine.connect() as connection:
        assert books(connection) == before


def test_concurrent_runs_pay_once(engine: Engine) -> None:
    """Overlapping runs share the work, and every hold is paid exactly once."""
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


def test_run_cut_short_keeps_what_is_committed(engine: Engine) -> None:
    """A failure in the second batch loses only that batch, and the next run releases the rest."""
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
    """Only errors with which the database ended the transaction are retried."""
    place(engine, 1)
    attempts: list[ReleaseBatch] = []

    def fail(_connection: Connection, released: ReleaseBatch) -> None:
        attempts.append(released)
        raise RuntimeError("a broken plug")

    with pytest.raises(RuntimeError, match="a broken plug"):
        drain(engine, on_batch=fail)

    assert len(attempts) == 1
