"""A release run: release batch after batch until nothing is due."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from threading import Thread
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import Span, StatusCode
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.hours import clock_of_a_writer
from buffer_pipeline.release import (
    ReleaseBatch,
    ReleasePosition,
    ReleaseRange,
    Shard,
    came_in_due,
    newest_hold,
    part_wallets,
    release_matured,
    release_range,
)
from buffer_pipeline.release_run.batch_size import BATCH_LIMIT, SMALLEST_BATCH, BatchSize
from buffer_pipeline.release_run.ranges import RangePlanner
from buffer_pipeline.release_run.worker_pool import ReleaseRun, WorkerPool, log_release

WORKERS_MAX: Final = 64

_DEADLOCK_OR_CONFLICT: Final = {"40P01", "40001"}
_LOCK_NOT_AVAILABLE: Final = "55P03"

# Its spans are recorded only if OpenTelemetry is configured. Otherwise they cost almost nothing.
tracer: Final = trace.get_tracer("buffer_pipeline")


def release_all_due(
    engine: Engine,
    *,
    due_by: datetime,
    source: str,
    batch_limit: int = BATCH_LIMIT,
    limit: int | None = None,
    dry_run: bool = False,
    workers: int = 1,
    clock: Callable[[Connection], datetime] = clock_of_a_writer,
    monotonic: Callable[[], float] = time.monotonic,
    stop: Callable[[], bool] = lambda: False,
    on_batch: Callable[[Connection, ReleaseBatch], None] | None = None,
    after_batch: Callable[[ReleaseBatch], None] | None = None,
) -> ReleaseRun:
    """Release all that is due by `due_by`, each batch in a transaction of its own.

    The size of a batch depends on how long the last ones took (`BatchSize`); it is at most `batch_limit`.
    `limit` ends the run after that many holds. A dry run runs the same statements and rolls each batch
    back. `clock` returns the time that the books record for a batch.

    Each of the `workers` is a thread with its own connection and its own shard of the wallets, so they never
    wait for each other. Each begins with the oldest release hour of its shard.

    `on_batch` is called inside the transaction of a batch, by several workers at the same time, and again if
    the batch is retried. The batch's lock timeout also applies to its statements. `after_batch` is called
    after the transaction has ended, by one worker at a time. Once `stop` returns True, no worker begins
    another batch.

    If the run is cut short at any point, what is committed is released and the rest is still due. After an
    error, the other workers finish their current batch and stop; then the error is raised. An exception in
    the waiting thread (Ctrl-C, the end of a Dagster run) cancels the running batches. They roll back, except
    one whose commit waits for a synchronous standby: it is already committed on the primary.

    Raises:
        InvalidInput: a limit below 1, or workers outside 1 to WORKERS_MAX.
    """
    if batch_limit < 1:
        raise InvalidInput(f"batch_limit {batch_limit}: must be at least 1")
    if limit is not None and limit < 1:
        raise InvalidInput(f"limit {limit}: must be at least 1")
    if not 1 <= workers <= WORKERS_MAX:
        raise InvalidInput(f"workers {workers}: must be from 1 to {WORKERS_MAX}")
    run = ReleaseRun(due_by=due_by, dry_run=dry_run)
    with _span("release", dry_run=dry_run) as span:
        span.set_attribute("buffer.source", source)
        pool = WorkerPool(run, limit=limit, stop=stop, after_batch=after_batch)
        shards = [Shard()]
        if workers > 1:
            with engine.begin() as connection:
                shards = part_wallets(connection, due_by=due_by, shards=workers)
        threads = [
            # Daemon threads, so that the process can end even if the server no longer answers.
            # They run in a copy of the caller's context, so that their spans belong to that of the run.
            Thread(
                target=copy_context().run, args=(worker.work, engine), name=f"release-{number}", daemon=True
            )
            for number, worker in enumerate(
                _Worker(
                    pool=pool,
                    shard=shard,
                    source=source,
                    size=BatchSize.first(batch_limit=batch_limit),
                    clock=clock,
                    monotonic=monotonic,
                    on_batch=on_batch,
                )
                for shard in shards
            )
        ]
        try:
            for thread in threads:
                thread.start()
            for _ in threads:
                pool.ended.get()
        except BaseException:
            pool.cancel(threads)
            raise
        if pool.failure is not None:
            span.set_status(StatusCode.ERROR, type(pool.failure).__name__)
            raise pool.failure
        span.set_attributes({"buffer.holds_released": run.holds_released, "buffer.batches": run.batches})
    log_release("release ended", run, batches=run.batches, interrupted=run.interrupted)
    return run


def _span(name: str, *, dry_run: bool) -> AbstractContextManager[Span]:
    # Errors are not recorded: their messages contain the statement and its parameters. And a batch that meets
    # a lock, or is retried, has not failed.
    return tracer.start_as_current_span(
        name, attributes={"buffer.dry_run": dry_run}, record_exception=False, set_status_on_exception=False
    )


@dataclass(kw_only=True)
class _Worker:
    """Releases all that is due in one shard."""

    pool: WorkerPool
    shard: Shard
    source: str
    size: BatchSize
    clock: Callable[[Connection], datetime]
    monotonic: Callable[[], float]
    on_batch: Callable[[Connection, ReleaseBatch], None] | None

    def work(self, engine: Engine) -> None:
        """Release all that is due in the shard, on one connection. An error goes to the pool."""
        try:
            with (
                engine.connect() as connection,
                self.pool.connections.working_on(connection),
                suppress(_StopWork),
            ):
                self._release_all(connection)
        except BaseException as error:  # noqa: BLE001 - raised by the thread that waits
            self.pool.fail(error)
        finally:
            self.pool.ended.put(self.shard)

    def _release_all(self, connection: Connection) -> None:
        everything = ReleaseRange(
            after=ReleasePosition(), through=ReleasePosition.end(self.pool.run.due_by), shard=self.shard
        )
        # A dry run makes one pass: a second one would find again what was rolled back.
        repeat = not self.pool.run.dry_run
        if self.pool.limited:
            # Here a batch locks and counts its holds before it releases them, so the limit is exact.
            while self._release_skip_locked(connection, everything) and repeat:
                pass
            return
        with connection.begin():
            newest = newest_hold(connection)
        incomplete = self._release_ranges(connection)
        # Retry the ranges in which others had locked holds, as long as any of them releases something. `sum`
        # and not `any`, so that each range is tried.
        while repeat and sum(self._retry_range(connection, each) for each in incomplete):
            pass
        # Then release what was added during the run and is due.
        while (
            repeat
            and self._more_came_in(connection, newest)
            and self._release_skip_locked(connection, everything)
        ):
            pass

    def _more_came_in(self, connection: Connection, newest: int) -> bool:
        with connection.begin():
            return came_in_due(connection, newest=newest, due_by=self.pool.run.due_by, shard=self.shard)

    def _release_ranges(self, connection: Connection) -> list[ReleaseRange]:
        """Release range by range, and visit each hold once.

        Return the incomplete ranges: those that could not be released in one statement, so that locked
        holds were skipped.
        """
        incomplete = []
        planner = RangePlanner(
            due_by=self.pool.run.due_by,
            shard=self.shard,
            every=min(SMALLEST_BATCH, self.size.batch_limit),
        )
        while (planned := self._next_range(connection, planner)) is not None:
            hold_range, holds_max = planned
            if self._release_range(connection, hold_range, holds_max=holds_max) is None:
                self._release_skip_locked(connection, hold_range)
                incomplete.append(hold_range)
        return incomplete

    def _next_range(self, connection: Connection, planner: RangePlanner) -> tuple[ReleaseRange, int] | None:
        with connection.begin():
            return planner.next(connection, holds=self.size.holds)

    def _release_range(
        self, connection: Connection, hold_range: ReleaseRange, *, holds_max: int
    ) -> ReleaseBatch | None:
        """Release a range in one statement.

        Return None, with nothing released, if it has more than `holds_max` due holds by now, or if another
        transaction keeps a lock for longer than LOCK_WAIT_SECONDS.
        """

        def release(*, now: datetime) -> ReleaseBatch:
            batch = release_range(
                connection, hold_range=hold_range, now=now, due_by=self.pool.run.due_by, source=self.source
            )
            if batch.holds_released > holds_max:
                raise _RangeGrew
            return batch

        claimed = self._claim(holds_max)
        try:
            return self._settle(connection, release, claimed=claimed)
        except _RangeGrew:
            pass
        except OperationalError as error:
            if _sqlstate(error) != _LOCK_NOT_AVAILABLE:
                raise
        self.pool.count(ReleaseBatch(), claimed=claimed)
        return None

    def _retry_range(self, connection: Connection, hold_range: ReleaseRange) -> bool:
        """Try again to release a range in one statement; if that fails, skip what is locked.

        Return True if anything was released.
        """
        batch = self._release_range(connection, hold_range, holds_max=self.size.holds)
        if batch is None:
            return self._release_skip_locked(connection, hold_range)
        return batch.holds_released > 0

    def _release_skip_locked(self, connection: Connection, hold_range: ReleaseRange) -> bool:
        """Release a range in batches, and skip what others have locked.

        Return True if anything was released.
        """
        released = False
        position: ReleasePosition | None = hold_range.after
        while position is not None:
            claimed = self._claim(self.size.holds)
            batch = self._settle(
                connection,
                partial(
                    release_matured,
                    connection,
                    due_by=self.pool.run.due_by,
                    batch_limit=claimed,
                    after=position,
                    through=hold_range.through,
                    source=self.source,
                    shard=hold_range.shard,
                ),
                claimed=claimed,
            )
            released |= batch.holds_released > 0
            position = batch.position
        return released

    def _claim(self, holds: int) -> int:
        claimed = self.pool.claim(holds)
        if claimed == 0:
            raise _StopWork
        return claimed

    def _settle(
        self, connection: Connection, release: Callable[..., ReleaseBatch], *, claimed: int
    ) -> ReleaseBatch:
        """Release one batch in a transaction of its own, and adapt the batch size to the time it took."""
        run = self.pool.run
        for attempt in retrying_conflicts():
            with attempt, _span("batch", dry_run=run.dry_run) as span, connection.begin() as transaction:
                now = self.clock(connection)
                # Measured for each attempt: an attempt that the database ended keeps no locks.
                began = self.monotonic()
                batch = release(now=now)
                if batch.holds_released and self.on_batch is not None:
                    self.on_batch(connection, batch)
                span.set_attribute("buffer.holds_released", batch.holds_released)
                if batch.batch_id is not None:
                    span.set_attribute("buffer.batch_id", batch.batch_id)
                if run.dry_run:
                    # Rolled back batch by batch, so that a dry run keeps locks no longer than a real run.
                    transaction.rollback()
        lock_seconds = self.monotonic() - began
        self.pool.count(batch, claimed=claimed)
        if batch.holds_released:
            self.size = self.size.after(
                holds_asked=claimed, holds_released=batch.holds_released, lock_seconds=lock_seconds
            )
        return batch


class _StopWork(Exception):
    """This worker may not begin another batch."""


class _RangeGrew(Exception):
    """A range released more holds than its batch may have; roll back."""


def retrying_conflicts() -> Retrying:
    """Return up to five attempts at a transaction that ends in a deadlock or a serialization failure."""
    # The platform's transactions may lock wallets in another order than ours. The database then ends one of
    # two transactions that wait for each other, and that one has written nothing.
    return Retrying(
        retry=retry_if_exception(
            lambda error: isinstance(error, OperationalError) and _sqlstate(error) in _DEADLOCK_OR_CONFLICT
        ),
        stop=stop_after_attempt(5),
        wait=wait_random_exponential(multiplier=0.05, max=1),
        reraise=True,
    )


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)
