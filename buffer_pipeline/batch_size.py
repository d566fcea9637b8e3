"""How many holds a batch of a release settles: as many as its locks may last."""

from dataclasses import dataclass, replace
from typing import Final

LOCK_SECONDS_TARGET: Final = 0.25
"""How long a batch may keep its locks: a platform's transaction that meets one waits no longer."""

LOCK_SECONDS_AIM: Final = 0.8 * LOCK_SECONDS_TARGET
"""What a batch is sized for. Batches of the same size differ by some hundredths on a quiet server and by
more beside other work, and it is the slow ones that are met: these are to keep the target too."""

BATCH_LIMIT: Final = 20_000
"""Holds in one transaction at most, however fast the server is."""

FIRST_BATCH: Final = 1_000
NEARLY_ALL: Final = 0.9
"""Some of a stretch is always frozen or released early between its counting and its release."""
SMALLEST_BATCH: Final = 100
"""Below this the cost of a transaction exceeds that of its holds, so smaller ones lock for no less."""


@dataclass(frozen=True)
class BatchSize:
    """How many holds the next batch may settle, so that its locks last for LOCK_SECONDS_AIM.

    The first is small, since nothing is known of the server yet. A batch that took longer than
    that shrinks the next one at once, to what would have taken just as long; a full one
    that took less lets it grow by that proportion, to twice the size at most, so that one lucky
    batch doesn't lead to one that locks for long. One that waited for another's lock looks slow
    as well; from whatever size it leads to, a few full batches lead back. Sizing by time is what
    pt-online-schema-change does with its `--chunk-time`, for the same reason.
    """

    holds: int
    batch_limit: int

    @classmethod
    def first(cls, *, batch_limit: int) -> "BatchSize":
        """Return the size of a run's first batch."""
        return cls(holds=min(FIRST_BATCH, batch_limit), batch_limit=batch_limit)

    def after(self, *, holds_asked: int, holds_released: int, lock_seconds: float) -> "BatchSize":
        """Return the size of the batch behind one that asked for at most so many holds.

        It is between SMALLEST_BATCH and the limit.
        """
        if lock_seconds > LOCK_SECONDS_AIM:
            holds = int(holds_released * LOCK_SECONDS_AIM / lock_seconds)
        elif holds_released < NEARLY_ALL * holds_asked:
            return self  # What a full one would take is not known from it.
        elif lock_seconds > LOCK_SECONDS_AIM / 2:
            holds = int(holds_asked * LOCK_SECONDS_AIM / lock_seconds)
        else:
            holds = holds_asked * 2
        return replace(self, holds=min(max(holds, SMALLEST_BATCH), self.batch_limit))
