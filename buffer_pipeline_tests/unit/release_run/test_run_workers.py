"""A release run with several workers, which divide the wallets among them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Barrier, Lock

import pytest
from sqlalchemy import Connection, Engine, ExceptionContext, event, select, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.release import ReleaseBatch
from buffer_pipeline.release_run.run import WORKERS_MAX
from buffer_pipeline.release_run.worker_pool import ReleaseRun
from buffer_pipeline.tables import transaction, wallet
from buffer_pipeline_tests.support.builders import (
    DAY_7,
    WAIT_SECONDS_MAX,
    Wallet,
    books,
    row_counts,
    wallet_of,
)
from buffer_pipeline_tests.support.release_drain import drain, place_many, wait_until, workers_alive


def test_slow_progress_callback_keeps_no_batch_open(engine: Engine) -> None:
    """While one worker's progress is being reported, another commits its batch."""
    place_many(engine, 400, payees=40)
    reported: list[int] = []

    def report(released: ReleaseBatch) -> None:
        reported.append(released.holds_released)
        if len(reported) == 1:
            wait_until(lambda: earnings(watcher) > released.holds_released, "another worker commits")

    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as watcher:
        drain(engine, workers=2, batch_limit=100, on_batch=lambda *_: None, after_batch=report)

    assert sum(reported) == 400


def earnings(connection: Connection) -> int:
    """Return the number of released holds."""
    count = connection.scalar(text("SELECT count(*) FROM buffer.transaction WHERE type = 'EARNING'"))
    assert isinstance(count, int)
    return count


def test_each_wallet_is_credited_by_one_worker(engine: Engine) -> None:
    """Everything is released once, and the books balance."""
    place_many(engine, 600, payees=60)
    owners_of: dict[str, set[str]] = {}
    busy, progress = Lock(), []

    def note(connection: Connection, released: ReleaseBatch) -> None:
        owners = connection.scalars(
            select(wallet.c.owner)
            .join(transaction, transaction.c.to_wallet_id == wallet.c.wallet_id)
            .where(transaction.c.batch_id == released.batch_id)
        )
        owners_of.setdefault(threading.current_thread().name, set()).update(owners)

    def report(released: ReleaseBatch) -> None:
        assert busy.acquire(blocking=False), "two calls at a time"
        progress.append(released.holds_released)
        busy.release()

    run = drain(
        engine,
        workers=3,
        batch_limit=20,
        on_batch=note,
        after_batch=report,
    )

    assert (run.holds_released, run.amounts_minor) == (600, {"PHP": 600_000})
    assert (sum(progress), len(progress)) == (600, run.batches)
    assert sorted(owners_of) == ["release-0", "release-1", "release-2"]
    assert sum(len(owners) for owners in owners_of.values()) == 60
    with engine.connect() as connection:
        assert row_counts(connection)["transaction"] == 1_200
        assert reconcile(connection) == []


@pytest.mark.parametrize("payees", [1, 10])
@pytest.mark.parametrize("limit", [1, 7, 40, 100])
@pytest.mark.parametrize("dry_run", [False, True])
def test_limit_is_kept_by_all_workers_together(
    engine: Engine, payees: int, limit: int, dry_run: bool
) -> None:
    """However the holds are distributed, a run releases exactly its limit."""
    place_many(engine, 40, payees=payees)

    run = drain(engine, workers=4, batch_limit=3, limit=limit, dry_run=dry_run)

    assert run.holds_released == min(limit, 40)
    rest = drain(engine).holds_released
    assert rest == (40 if dry_run else 40 - run.holds_released)


def test_dry_run_of_workers_changes_nothing(engine: Engine) -> None:
    """The workers count what is due and leave every row."""
    place_many(engine, 100, payees=10)
    with engine.connect() as connection:
        before = books(connection)

    run = drain(engine, workers=3, batch_limit=9, dry_run=True)

    assert (run.holds_released, run.amounts_minor) == (100, {"PHP": 100_000})
    with engine.connect() as connection:
        assert books(connection) == before


def test_concurrent_runs_with_workers_pay_once(engine: Engine) -> None:
    """Overlapping runs with several workers neither deadlock nor pay twice."""
    place_many(engine, 900, payees=30)
    barrier = Barrier(2)
    ended: list[str | None] = []

    @event.listens_for(engine, "handle_error")
    def note(context: ExceptionContext) -> None:
        ended.append(getattr(context.original_exception, "sqlstate", None))

    def run(workers: int) -> ReleaseRun:
        barrier.wait(timeout=WAIT_SECONDS_MAX)
        return drain(engine, workers=workers, batch_limit=7)

    with ThreadPoolExecutor(2) as threads:
        runs = [future.result() for future in [threads.submit(run, workers) for workers in (3, 4)]]

    # They skipped each other's locks; none ended in a deadlock.
    assert set(ended) <= {"55P03"}
    assert sum(one.holds_released for one in runs) == 900
    with engine.connect() as connection:
        assert [wallet_of(connection, f"worker-{number}") for number in range(30)] == [
            Wallet(balance_minor=30_000)
        ] * 30
        assert row_counts(connection)["transaction"] == 1_800
        assert reconcile(connection) == []


def test_worker_that_fails_stops_the_others_after_their_batch(engine: Engine, other: Connection) -> None:
    """Other workers commit their current batch and stop, and the error is raised."""
    place_many(engine, 40, payees=2)
    arrivals, failed, gate = [0, 1], threading.Event(), threading.Event()

    def fail(_connection: Connection, _released: ReleaseBatch) -> None:
        if arrivals.pop():
            assert gate.wait(timeout=WAIT_SECONDS_MAX)
        else:
            failed.set()
            raise RuntimeError("a broken plug")

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(drain, engine, workers=2, batch_limit=5, limit=40, on_batch=fail)
        wait_until(lambda: failed.is_set() and len(workers_alive()) == 1, "the other one fails")
        gate.set()
        with pytest.raises(RuntimeError, match="a broken plug"):
            running.result(timeout=WAIT_SECONDS_MAX)

    found = {wallet_of(other, f"worker-{number}") for number in range(2)}
    assert found == {
        Wallet(balance_minor=5_000, pending_earnings_minor=15_000),
        Wallet(pending_earnings_minor=20_000),
    }
    other.rollback()
    assert drain(engine).holds_released == 35


def test_engine_has_connections_for_many_workers(engine: Engine) -> None:
    """Workers with concurrent transactions do not wait for connections."""
    place_many(engine, 40, payees=40)
    barrier = Barrier(20)
    arrived: set[str] = set()

    def all_together(_connection: Connection) -> datetime:
        if threading.current_thread().name not in arrived:
            arrived.add(threading.current_thread().name)
            barrier.wait(timeout=WAIT_SECONDS_MAX)
        return DAY_7

    run = drain(engine, workers=20, clock=all_together)

    assert run.holds_released == 40


@pytest.mark.parametrize("workers", [0, -1, WORKERS_MAX + 1])
def test_workers_out_of_bounds_are_refused(engine: Engine, workers: int) -> None:
    """None, or more than a server has connections for."""
    with pytest.raises(InvalidInput, match=f"workers {workers}: must be from 1 to {WORKERS_MAX}"):
        drain(engine, workers=workers)
