"""The size of a release batch: as many holds as its locks may be kept for."""

from dataclasses import dataclass, replace
from typing import Final

LOCK_SECONDS_TARGET: Final = 0.25
"""How long a batch may keep its locks. A transaction of the platform that meets a batch waits no longer."""

LOCK_SECONDS_AIM: Final = 0.8 * LOCK_SECONDS_TARGET
"""The time that a batch is sized for. Batches of the same size differ by a few percent on a quiet server, and
by more on a busy one. The margin lets the slow ones meet the target too."""

BATCH_LIMIT: Final = 20_000
"""Most holds in one transaction, however fast the server is."""

FIRST_BATCH: Final = 1_000
NEARLY_ALL: Final = 0.9
"""A batch that releases this share of its range counts as full: some holds of a range are frozen or released
early between its counting and its release."""
SMALLEST_BATCH: Final = 100
"""Below this size, a transaction costs more than its holds, so a smaller batch would not be shorter."""


@dataclass(frozen=True)
class BatchSize:
    """The size of the next batch, chosen so that it keeps its locks for about LOCK_SECONDS_AIM.

    The first batch is small, because the speed of the server is not known yet. After a batch that took
    longer, the next one is smaller in proportion. After a full batch that took less, the next one is
    larger in proportion, but at most twice as large, so that one fast batch does not lead to one that
    locks for long. A batch that waited for a lock also looks slow; a few full batches later the size is
    right again. pt-online-schema-change sizes its chunks by time for the same reason (`--chunk-time`).
    """

    holds: int
    batch_limit: int

    @classmethod
    def first(cls, *, batch_limit: int) -> "BatchSize":
        """Return the size of a run's first batch."""
        return cls(holds=min(FIRST_BATCH, batch_limit), batch_limit=batch_limit)

    def after(self, *, holds_asked: int, holds_released: int, lock_seconds: float) -> "BatchSize":
        """Return the size of the next batch, between SMALLEST_BATCH and the limit.

        The last batch could release `holds_asked` holds, released `holds_released` and kept its locks for
        `lock_seconds`.
        """
        if lock_seconds > LOCK_SECONDS_AIM:
            holds = int(holds_released * LOCK_SECONDS_AIM / lock_seconds)
        elif holds_released < NEARLY_ALL * holds_asked:
            return self  # It does not show how long a full batch would take.
        elif lock_seconds > LOCK_SECONDS_AIM / 2:
            holds = int(holds_asked * LOCK_SECONDS_AIM / lock_seconds)
        else:
            holds = holds_asked * 2
        return replace(self, holds=min(max(holds, SMALLEST_BATCH), self.batch_limit))
