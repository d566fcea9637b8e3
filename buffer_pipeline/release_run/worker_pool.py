"""The state that the workers of a release run share: the limit, the totals, and how they stop."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from queue import Empty, SimpleQueue
from threading import Condition, Lock, Thread
from typing import Final

from buffer_pipeline.cancel import Cancelable
from buffer_pipeline.release import ReleaseBatch, Shard

_WORKERS_STOP_SECONDS_MAX: Final = 10

logger: Final = logging.getLogger("buffer_pipeline.release")


@dataclass
class ReleaseRun:
    """What a run has released so far. `amounts_minor` is currency -> minor units.

    `recovered_minor` is what of it paid debts of the payees, also by currency.
    """

    due_by: datetime
    dry_run: bool
    holds_released: int = 0
    amounts_minor: dict[str, int] = field(default_factory=dict)
    recovered_minor: dict[str, int] = field(default_factory=dict)
    batches: int = 0
    interrupted: bool = False
    """True if the run was asked to stop before it knew that nothing was left."""

    def add(self, batch: ReleaseBatch) -> None:
        """Add a batch to the totals."""
        self.batches += 1
        self.holds_released += batch.holds_released
        for total, of_batch in (
            (self.amounts_minor, batch.amounts_minor),
            (self.recovered_minor, batch.recovered_minor),
        ):
            for currency, amount_minor in of_batch.items():
                total[currency] = total.get(currency, 0) + amount_minor


def log_release(event: str, run: ReleaseRun | ReleaseBatch, **facts: object) -> None:
    """Log the totals of a run, or what one batch released."""
    figures = {"holds_released": run.holds_released, "amounts_minor": dict(run.amounts_minor)}
    logger.info(event, extra={**figures, **facts})


class WorkerPool:
    """The state that the workers of a run share.

    The main thread waits for the workers at the queue `ended`. It takes no lock of this class, because a
    signal handler could raise an exception while it holds one. It does not use `Thread.join` either: if
    such an exception interrupts it, Python 3.11 believes that the thread has ended.
    """

    def __init__(
        self,
        run: ReleaseRun,
        *,
        limit: int | None,
        stop: Callable[[], bool],
        after_batch: Callable[[ReleaseBatch], None] | None,
    ) -> None:
        self.changed = Condition()
        self._reporting = Lock()
        self.ended: SimpleQueue[Shard] = SimpleQueue()
        self.failure: BaseException | None = None
        self.run = run
        self.limited = limit is not None
        self._unclaimed = limit
        self._claims = 0
        self._stop = stop
        self._after_batch = after_batch
        self._halted = False
        self.connections = Cancelable()

    def claim(self, holds: int) -> int:
        """Return how many holds the caller's next batch may release; 0 means that the caller should stop.

        If other workers have claimed all of the limit, wait: they may release less than they claimed.
        """
        with self.changed:
            self.changed.wait_for(lambda: self._unclaimed != 0 or self._claims == 0 or self._halted)
            if self._halted or self._unclaimed == 0:
                return 0
            if self._stop():
                self.run.interrupted = True
                return 0
            self._claims += 1
            if self._unclaimed is None:
                return holds
            claimed = min(holds, self._unclaimed)
            self._unclaimed -= claimed
            return claimed

    def count(self, batch: ReleaseBatch, *, claimed: int) -> None:
        """Add a batch to the totals, and give back the unused part of its claim."""
        with self.changed:
            self._claims -= 1
            if self._unclaimed is not None:
                self._unclaimed += claimed - batch.holds_released
            self.changed.notify_all()
            if batch.holds_released:
                self.run.add(batch)
        if batch.holds_released:
            log_release("batch released", batch, batch_id=batch.batch_id, dry_run=self.run.dry_run)
        if batch.holds_released and self._after_batch is not None:
            # Another lock than `changed`, because the callback may be slow: a worker that has a batch open
            # must not wait for it.
            with self._reporting:
                self._after_batch(batch)

    def fail(self, error: BaseException) -> None:
        """Keep the first error, and stop all workers before their next batch."""
        with self.changed:
            self.failure = self.failure or error
            self._halted = True
            self.changed.notify_all()

    def cancel(self, threads: Sequence[Thread]) -> None:
        """Cancel the running batches and wait until their threads have ended, at most 10 seconds.

        A cancelled batch rolls back, except one whose commit has reached the disk already.
        """
        self._halted = True
        deadline = time.monotonic() + _WORKERS_STOP_SECONDS_MAX
        while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
            self.connections.cancel()
            with suppress(Empty):
                self.ended.get(timeout=0.1)
