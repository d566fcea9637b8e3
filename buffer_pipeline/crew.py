"""What the workers of a release run share: what may still be claimed, what was released, and how they end."""

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

_CANCEL_SECONDS_MAX: Final = 10

logger: Final = logging.getLogger("buffer_pipeline.release")


@dataclass
class ReleaseRun:
    """What a run has released so far. `amounts_minor` is minor units by currency."""

    due_by: datetime
    dry_run: bool
    holds_released: int = 0
    amounts_minor: dict[str, int] = field(default_factory=dict)
    batches: int = 0
    interrupted: bool = False
    """Whether the run was asked to stop before it knew that nothing is left."""

    def add(self, batch: ReleaseBatch) -> None:
        """Count one batch in."""
        self.batches += 1
        self.holds_released += batch.holds_released
        for currency, amount_minor in batch.amounts_minor.items():
            self.amounts_minor[currency] = self.amounts_minor.get(currency, 0) + amount_minor


def tell(event: str, run: ReleaseRun | ReleaseBatch, **facts: object) -> None:
    """Log what was released so far, or in a batch."""
    figures = {"holds_released": run.holds_released, "amounts_minor": dict(run.amounts_minor)}
    logger.info(event, extra={**figures, **facts})


class Crew:
    """What the workers of a run share.

    The thread that waits for them does so by `ended`, and takes no lock in here: an exception
    of a signal's handler could strike while it has one. (`Thread.join` is no way to wait either:
    where such an exception ends it, Python 3.11 takes the thread for ended.)
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
        self._telling = Lock()
        self.ended: SimpleQueue[Shard] = SimpleQueue()
        self.failure: BaseException | None = None
        self.run = run
        self.limited = limit is not None
        self._room = limit
        self._claims = 0
        self._stop = stop
        self._after_batch = after_batch
        self._halted = False
        self.in_hand = Cancelable()

    def claim(self, holds: int) -> int:
        """Return how many holds the caller's next batch may settle; 0 ends its work.

        Waits where others have claimed all that is left, since they may find less.
        """
        with self.changed:
            self.changed.wait_for(lambda: self._room != 0 or self._claims == 0 or self._halted)
            if self._halted or self._room == 0:
                return 0
            if self._stop():
                self.run.interrupted = True
                return 0
            self._claims += 1
            if self._room is None:
                return holds
            claimed = min(holds, self._room)
            self._room -= claimed
            return claimed

    def count(self, batch: ReleaseBatch, *, claimed: int) -> None:
        """Count a batch in, and give back what it has not used of its claim."""
        with self.changed:
            self._claims -= 1
            if self._room is not None:
                self._room += claimed - batch.holds_released
            self.changed.notify_all()
            if batch.holds_released:
                self.run.add(batch)
        if batch.holds_released:
            tell("batch released", batch, batch_id=batch.batch_id, dry_run=self.run.dry_run)
        if batch.holds_released and self._after_batch is not None:
            # A lock of its own, which nobody waits for who has a batch in hand: what is told may be
            # read slowly.
            with self._telling:
                self._after_batch(batch)

    def fail(self, error: BaseException) -> None:
        """Keep the first error, and let nobody begin another batch."""
        with self.changed:
            self.failure = self.failure or error
            self._halted = True
            self.changed.notify_all()

    def cancel(self, threads: Sequence[Thread]) -> None:
        """End the batches in hand and wait for their end: a rollback, but for a commit that stands."""
        self._halted = True
        deadline = time.monotonic() + _CANCEL_SECONDS_MAX
        while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
            self.in_hand.cancel()
            with suppress(Empty):
                self.ended.get(timeout=0.1)
