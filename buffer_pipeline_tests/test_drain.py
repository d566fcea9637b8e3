"""A release run takes all that was due at its start, whatever happens beside it."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Barrier, Lock
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, ExceptionContext, event, select, text

from buffer_pipeline.batch_size import LOCK_SECONDS_AIM
from buffer_pipeline.crew import ReleaseRun
from buffer_pipeline.database import make_engine
from buffer_pipeline.drain import WORKERS_MAX, drain_matured
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.hold import HoldState
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.release import ReleaseBatch
from buffer_pipeline.tables import batch, transaction, unsettled_hold, wallet
from buffer_pipeline_tests.builders import (
    DAY_7,
    PAYEE,
    PAYER,
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
from buffer_pipeline_tests.conftest import NOON

HOUR = timedelta(hours=1)


def drain(engine: Engine, **changes: Any) -> ReleaseRun:
    """Drain what is due at DAY_7, with some of it changed."""
    asked = {"due_by": DAY_7, "source": "a test", "clock": lambda _connection: DAY_7}
    return drain_matured(engine, **{**asked, **changes})


def place(engine: Engine, number: int, **changes: Any) -> list[int]:
    """Commit a number of holds; return their ids."""
    with engine.begin() as connection:
        return [place_hold(connection, **changes) for _ in range(number)]


def place_many(engine: Engine, holds: int, *, payees: int = 1) -> None:
    """Commit holds of 10.00 PHP that are due at DAY_7, in turn for each of so many payees."""
    with engine.begin() as connection:
        add_many_pending_earnings(
            connection,
            [
                Earning(
                    reference=f"many-{number}",
                    job=f"job-{number}",
                    payee=f"worker-{number % payees}",
                    payer=PAYER,
                    amount="10.00",
                    currency="PHP",
                    held_at=NOON,
                )
                for number in range(holds)
            ],
            now=NOON,
        )


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Poll, with a deadline, for something that another thread is about to do."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, f"{what}: it never happened"


def workers_alive() -> list[str]:
    """Return the names of the workers' threads that have not ended."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("release-")]


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


@pytest.mark.parametrize("options", [{}, {"limit": 2_000}, {"workers": 2}, {"batch_limit": 100}])
def test_wallet_that_a_transaction_never_gives_back_keeps_its_own_holds_only(
    engine: Engine, other: Connection, options: dict[str, int]
) -> None:
    """A run releases all that others earned while a transaction that never ends has locked one wallet."""
    place_many(engine, 1_500, payees=300)
    other.execute(select(wallet).where(wallet.c.owner == "worker-150").with_for_update())
    run = drain(engine, **options)

    assert run.holds_released == 1_495
    with engine.connect() as connection:
        assert wallet_of(connection, "worker-150") == Wallet(pending_earnings_minor=5_000)
        assert wallet_of(connection, "worker-151") == Wallet(balance_minor=5_000)
    other.rollback()
    assert drain(engine).holds_released == 5


def test_wallet_that_is_given_back_soon_is_released_to_by_the_same_run(
    engine: Engine, other: Connection
) -> None:
    """A run gives up a locked wallet after a moment, skips it, and comes back to it."""
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

    def wait_once(connection: Connection, _batch: ReleaseBatch) -> None:
        if not ended:
            connection.execute(text("SELECT pg_advisory_xact_lock(17)"))

    superuser_engine = make_engine(superuser_url)
    with (
        ThreadPoolExecutor(1) as threads,
        engine.connect() as watcher,
        superuser_engine.connect() as platform,
    ):
        # The platform's transaction waits longer, so that the batch finds the deadlock first.
        platform.execute(text("SET LOCAL deadlock_timeout = '20s'"))
        platform.execute(text("SELECT pg_advisory_xact_lock(17)"))
        # The batch itself waits for nobody: what it waits for is the caller's.
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


# ---- how many holds a batch has


@dataclass
class Stopwatch:
    """A monotonic clock that stands still until it is moved."""

    seconds: float = 0.0


def sizes_of(engine: Engine, watch: Stopwatch, **changes: Any) -> list[int]:
    """Drain by the stopwatch and return how many holds each batch released."""
    sizes: list[int] = []
    drain(
        engine,
        monotonic=lambda: watch.seconds,
        after_batch=lambda released: sizes.append(released.holds_released),
        **changes,
    )
    return sizes


def test_run_comes_to_the_size_that_takes_the_target(engine: Engine) -> None:
    """On a server that settles 500 holds in the target's time the batches have 500 holds."""
    place_many(engine, 2_300)
    watch = Stopwatch()

    def work(_connection: Connection, released: ReleaseBatch) -> None:
        # By half a hold less, whatever the last digits of a sum of seconds are.
        watch.seconds += LOCK_SECONDS_AIM * released.holds_released / 500.5

    assert sizes_of(engine, watch, on_batch=work) == [1_000, 500, 500, 300]


def test_run_on_a_fast_server_grows_to_its_limit(engine: Engine) -> None:
    """Where batches take no time they double, up to `batch_limit`."""
    place_many(engine, 5_000)

    assert sizes_of(engine, Stopwatch(), batch_limit=1_700) == [1_000, 1_700, 1_700, 600]


def test_commit_counts_as_lock_time(engine: Engine) -> None:
    """Locks last until the commit has returned, so a slow commit makes batches smaller."""
    place_many(engine, 1_500)
    watch = Stopwatch()

    @event.listens_for(engine, "commit")
    def wait_for_the_disk(_connection: Connection) -> None:
        watch.seconds += 4 * LOCK_SECONDS_AIM

    assert sizes_of(engine, watch)[:2] == [1_000, 200]


# ---- several workers


def test_who_reads_slowly_keeps_no_batch_open(engine: Engine) -> None:
    """While one worker's progress is being told, another commits its batch."""
    place_many(engine, 400, payees=40)
    told: list[int] = []

    def tell(released: ReleaseBatch) -> None:
        told.append(released.holds_released)
        if len(told) == 1:
            wait_until(lambda: earnings(watcher) > released.holds_released, "another worker commits")

    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as watcher:
        drain(engine, workers=2, batch_limit=100, on_batch=lambda *_: None, after_batch=tell)

    assert sum(told) == 400


def earnings(connection: Connection) -> int:
    """Return how many holds have been released."""
    count = connection.scalar(text("SELECT count(*) FROM buffer.transaction WHERE type = 'EARNING'"))
    assert isinstance(count, int)
    return count


def test_workers_share_the_wallets_out(engine: Engine) -> None:
    """Each wallet is credited by one worker, all is released once, and the books balance."""
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

    def tell(released: ReleaseBatch) -> None:
        assert busy.acquire(blocking=False), "two calls at a time"
        progress.append(released.holds_released)
        busy.release()

    run = drain(
        engine,
        workers=3,
        batch_limit=20,
        on_batch=note,
        after_batch=tell,
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
    """However the holds lie over the workers, a run releases its limit to the hold."""
    place_many(engine, 40, payees=payees)

    run = drain(engine, workers=4, batch_limit=3, limit=limit, dry_run=dry_run)

    assert run.holds_released == min(limit, 40)
    rest = drain(engine).holds_released
    assert rest == (40 if dry_run else 40 - run.holds_released)


def test_dry_run_of_workers_changes_nothing(engine: Engine) -> None:
    """Several workers of a dry run count what is due and leave every row."""
    place_many(engine, 100, payees=10)
    with engine.connect() as connection:
        before = books(connection)

    run = drain(engine, workers=3, batch_limit=9, dry_run=True)

    assert (run.holds_released, run.amounts_minor) == (100, {"PHP": 100_000})
    with engine.connect() as connection:
        assert books(connection) == before


def test_two_runs_of_workers_at_once_pay_once(engine: Engine) -> None:
    """Overlapping runs with several workers each neither deadlock nor pay twice."""
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

    # Where one met the other, it went round; nobody ended in a deadlock.
    assert set(ended) <= {"55P03"}
    assert sum(one.holds_released for one in runs) == 900
    with engine.connect() as connection:
        assert [wallet_of(connection, f"worker-{number}") for number in range(30)] == [
            Wallet(balance_minor=30_000)
        ] * 30
        assert row_counts(connection)["transaction"] == 1_800
        assert reconcile(connection) == []


def test_worker_that_fails_stops_the_others_behind_their_batch(engine: Engine, other: Connection) -> None:
    """What another worker has in hand is finished and committed, nothing more is begun, and the
    failure is raised.
    """
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


def test_engine_has_room_for_many_workers(engine: Engine) -> None:
    """Workers that all have a transaction open at the same moment do not wait for connections."""
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
    """No worker, or more than a server has connections for, is a mistake."""
    with pytest.raises(InvalidInput, match=f"workers {workers}: must be from 1 to {WORKERS_MAX}"):
        drain(engine, workers=workers)


# ---- interrupted


@pytest.mark.parametrize("workers", [1, 3])
def test_run_that_is_asked_to_stop_begins_no_other_batch(engine: Engine, workers: int) -> None:
    """What is committed stays released, the rest stays due, and the run says that it was interrupted."""
    place_many(engine, 60, payees=6)
    batches: list[ReleaseBatch] = []

    run = drain(
        engine, workers=workers, batch_limit=5, stop=lambda: bool(batches), after_batch=batches.append
    )

    assert run.interrupted
    assert run.holds_released == 5 * run.batches
    assert 1 <= run.batches <= workers
    again = drain(engine)
    assert (again.holds_released, again.interrupted) == (60 - run.holds_released, False)


def test_run_that_has_reached_its_limit_was_not_interrupted(engine: Engine) -> None:
    """A wish to stop that comes when all is done interrupts nothing."""
    place_many(engine, 10)
    batches: list[ReleaseBatch] = []

    run = drain(engine, limit=5, stop=lambda: bool(batches), after_batch=batches.append)

    assert (run.holds_released, run.interrupted) == (5, False)


class EndOfTheRun(BaseException):
    """What a signal's handler raises in the thread that waits."""


@pytest.mark.parametrize("workers", [1, 2])
def test_exception_in_the_waiting_thread_rolls_back_what_is_in_hand(
    engine: Engine, other: Connection, workers: int
) -> None:
    """While the locks stand that the batches wait for, they are cancelled, and keep no lock themselves."""
    place_many(engine, 40, payees=2)
    with engine.connect() as connection:
        before = books(connection)
    other.execute(select(wallet).with_for_update())

    def end(_number: int, _frame: object) -> None:
        raise EndOfTheRun

    def interrupt() -> None:
        with engine.connect() as watcher:
            wait_until(lambda: waiting_for_a_lock(watcher) == workers, "the batches wait")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    handler = signal.signal(signal.SIGUSR1, end)
    try:
        with ThreadPoolExecutor(1) as threads:
            interrupting = threads.submit(interrupt)
            with pytest.raises(EndOfTheRun):
                drain(engine, workers=workers)
            interrupting.result()
    finally:
        signal.signal(signal.SIGUSR1, handler)

    assert workers_alive() == []
    with engine.connect() as connection:
        assert waiting_for_a_lock(connection) == 0
        assert books(connection) == before
    other.rollback()
    assert drain(engine, workers=workers).holds_released == 40
