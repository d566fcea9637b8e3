"""A release run: batch after batch until nothing that was due is left."""

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

from buffer_pipeline.batch_size import BATCH_LIMIT, SMALLEST_BATCH, BatchSize
from buffer_pipeline.crew import Crew, ReleaseRun, tell
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.hours import clock_of_a_writer
from buffer_pipeline.release import (
    ReleaseBatch,
    ReleasePosition,
    Shard,
    Stretch,
    came_in_due,
    newest_hold,
    part_wallets,
    release_matured,
    release_stretch,
)
from buffer_pipeline.stretches import Course

WORKERS_MAX: Final = 64

_DEADLOCK_OR_CONFLICT: Final = {"40P01", "40001"}
_LOCK_NOT_AVAILABLE: Final = "55P03"

# Spans of it are recorded where somebody has set OpenTelemetry up, and cost next to nothing elsewhere.
tracer: Final = trace.get_tracer("buffer_pipeline")


def drain_matured(
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

    A batch is sized by what the ones before it took (`BatchSize`), `batch_limit` at most.
    `limit` ends the run after so many holds. A dry run runs the same statements and
    rolls each batch back. `clock` gives each batch the time that the books record.

    Each of the `workers` is a thread with a connection and a share of the wallets of its own, so
    that they never wait for each other; each takes the oldest release hour of its share first.
    `on_batch` is called inside the batch's transaction, by several workers at the same time, and again
    where the batch is begun again; it gives up a lock as soon as the batch does.
    `after_batch` behind its end, one call at a time. Once `stop` returns true
    no worker begins another batch.

    Cut short at any point, what is committed is released and the rest is still due. After an error,
    the other workers finish their current batch and stop; the error is raised. An exception in the
    waiting thread itself (Ctrl-C, the end of a Dagster run) cancels the batches in hand: they roll
    back, but for one whose commit waits for a synchronous standby, which stands on the primary.

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
        crew = Crew(run, limit=limit, stop=stop, after_batch=after_batch)
        shards = [Shard()]
        if workers > 1:
            with engine.begin() as connection:
                shards = part_wallets(connection, due_by=due_by, shards=workers)
        threads = [
            # Daemons: where the server does not answer any more, the process can still end.
            # In the caller's context: a line that one logs says of which run it is.
            Thread(
                target=copy_context().run, args=(worker.work, engine), name=f"release-{number}", daemon=True
            )
            for number, worker in enumerate(
                _Worker(
                    crew=crew,
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
                crew.ended.get()
        except BaseException:
            crew.cancel(threads)
            raise
        if crew.failure is not None:
            span.set_status(StatusCode.ERROR, type(crew.failure).__name__)
            raise crew.failure
        span.set_attributes({"buffer.holds_released": run.holds_released, "buffer.batches": run.batches})
    tell("release ended", run, batches=run.batches, interrupted=run.interrupted)
    return run


def _span(name: str, *, dry_run: bool) -> AbstractContextManager[Span]:
    # An error's words have the statement and its parameters; and a batch that gives way, or is begun again,
    # has not failed.
    return tracer.start_as_current_span(
        name, attributes={"buffer.dry_run": dry_run}, record_exception=False, set_status_on_exception=False
    )


@dataclass(kw_only=True)
class _Worker:
    crew: Crew
    shard: Shard
    source: str
    size: BatchSize
    clock: Callable[[Connection], datetime]
    monotonic: Callable[[], float]
    on_batch: Callable[[Connection, ReleaseBatch], None] | None

    def work(self, engine: Engine) -> None:
        """Release all that is due in the shard, on one connection. An error goes to the crew."""
        try:
            with engine.connect() as connection, self.crew.in_hand.working_on(connection), suppress(_NoMore):
                self._drain(connection)
        except BaseException as error:  # noqa: BLE001 - raised by the thread that waits
            self.crew.fail(error)
        finally:
            self.crew.ended.put(self.shard)

    def _drain(self, connection: Connection) -> None:
        due_by, looks_again = self.crew.run.due_by, not self.crew.run.dry_run
        everything = Stretch(after=ReleasePosition(), through=ReleasePosition.end(due_by), shard=self.shard)
        if self.crew.limited:
            # To the hold: each is locked before it is counted.
            while self._go_round(connection, everything) and looks_again:
                pass
            return
        with connection.begin():
            newest = newest_hold(connection)
        kept = self._go_straight(connection)
        # Comes back to what others had locked, and to what came in due meanwhile, as long as any of it is
        # released. A dry run would find again what it has rolled back. A sum, so that each is tried.
        while looks_again and sum(self._come_back(connection, stretch) for stretch in kept):
            pass
        while looks_again and self._came_in(connection, newest) and self._go_round(connection, everything):
            pass

    def _came_in(self, connection: Connection, newest: int) -> bool:
        with connection.begin():
            return came_in_due(connection, newest=newest, due_by=self.crew.run.due_by, shard=self.shard)

    def _go_straight(self, connection: Connection) -> list[Stretch]:
        """Release stretch by stretch, each hold in one visit; return those that it had to go round."""
        went_round = []
        course = Course(
            due_by=self.crew.run.due_by,
            shard=self.shard,
            every=min(SMALLEST_BATCH, self.size.batch_limit),
        )
        while (ahead := self._look_ahead(connection, course)) is not None:
            stretch, held = ahead
            if self._at_once(connection, stretch, held=held) is None:
                self._go_round(connection, stretch)
                went_round.append(stretch)
        return went_round

    def _look_ahead(self, connection: Connection, course: Course) -> tuple[Stretch, int] | None:
        with connection.begin():
            return course.next(connection, holds=self.size.holds)

    def _at_once(self, connection: Connection, stretch: Stretch, *, held: int) -> ReleaseBatch | None:
        """Release a stretch that had so many holds; None where it has more now, or somebody keeps a lock."""

        def release(*, now: datetime) -> ReleaseBatch:
            batch = release_stretch(
                connection, stretch=stretch, now=now, due_by=self.crew.run.due_by, source=self.source
            )
            if batch.holds_released > held:
                raise _StretchGrew
            return batch

        claimed = self._claim(held)
        try:
            return self._settle(connection, release, claimed=claimed)
        except _StretchGrew:
            pass
        except OperationalError as error:
            if _sqlstate(error) != _LOCK_NOT_AVAILABLE:
                raise
        self.crew.count(ReleaseBatch(), claimed=claimed)
        return None

    def _come_back(self, connection: Connection, stretch: Stretch) -> bool:
        """Release what was locked in a stretch, waiting LOCK_WAIT_SECONDS for it; skip what still is.

        Return whether anything was released.
        """
        batch = self._at_once(connection, stretch, held=self.size.holds)
        return self._go_round(connection, stretch) if batch is None else batch.holds_released > 0

    def _go_round(self, connection: Connection, stretch: Stretch) -> bool:
        """Release a stretch, but skip what others have locked; return whether anything was released."""
        released = False
        position: ReleasePosition | None = stretch.after
        while position is not None:
            claimed = self._claim(self.size.holds)
            batch = self._settle(
                connection,
                partial(
                    release_matured,
                    connection,
                    due_by=self.crew.run.due_by,
                    batch_limit=claimed,
                    after=position,
                    through=stretch.through,
                    source=self.source,
                    shard=stretch.shard,
                ),
                claimed=claimed,
            )
            released |= batch.holds_released > 0
            position = batch.position
        return released

    def _claim(self, holds: int) -> int:
        claimed = self.crew.claim(holds)
        if claimed == 0:
            raise _NoMore
        return claimed

    def _settle(
        self, connection: Connection, release: Callable[..., ReleaseBatch], *, claimed: int
    ) -> ReleaseBatch:
        """Release one batch in a transaction of its own, and learn from how long that took."""
        run = self.crew.run
        for attempt in retrying_conflicts():
            with attempt, _span("batch", dry_run=run.dry_run) as span, connection.begin() as transaction:
                now = self.clock(connection)
                # Each attempt by itself: one that the database has ended keeps no locks.
                began = self.monotonic()
                batch = release(now=now)
                if batch.holds_released and self.on_batch is not None:
                    self.on_batch(connection, batch)
                span.set_attribute("buffer.holds_released", batch.holds_released)
                if batch.batch_id is not None:
                    span.set_attribute("buffer.batch_id", batch.batch_id)
                if run.dry_run:
                    # Batch by batch, so that it keeps no hold from a real run for longer than one does.
                    transaction.rollback()
        lock_seconds = self.monotonic() - began
        self.crew.count(batch, claimed=claimed)
        if batch.holds_released:
            self.size = self.size.after(
                holds_asked=claimed, holds_released=batch.holds_released, lock_seconds=lock_seconds
            )
        return batch


class _NoMore(Exception):
    """No other batch may be begun."""


class _StretchGrew(Exception):
    """More was released than a batch may have."""


def retrying_conflicts() -> Retrying:
    """Return up to five attempts at a transaction, for as long as the database ends it for another's sake."""
    # A platform's transaction may hold wallets in another order than ours; the database then
    # ends one of the two. What was ended wrote nothing.
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
