"""Divide what is due into ranges of a requested number of holds, in the order of release."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from buffer_pipeline.release import ReleasePosition, ReleaseRange, Shard, boundaries

BOUNDARIES_AHEAD: Final = 10_000
"""Most boundaries that are kept in memory, so that memory does not grow with the backlog."""


@dataclass
class RangePlanner:
    """One pass over what is due, the oldest release hour first.

    The number of holds in a range must be known before its release, without reading its rows. So the
    position of every `every`-th hold (a boundary) is read ahead from the index. Between reading and release
    a range can become longer, if due holds are added, or shorter, if holds are frozen.
    """

    due_by: datetime
    shard: Shard
    every: int
    _at: ReleasePosition = field(default_factory=ReleasePosition)
    _ahead: list[ReleasePosition] = field(default_factory=list)
    _whole_hours: bool = True

    def next(self, connection: Connection, *, holds: int) -> tuple[ReleaseRange, int] | None:
        """Return the next range of about `holds` holds, and the most holds that it had when its boundaries
        were read. Return None after the last range.
        """
        if self._at == ReleasePosition.end(self.due_by):
            return None
        steps = max(1, holds // self.every)
        # Also near the end: more than a batch may have been added there since the last reading.
        while len(self._ahead) < steps and self._read_ahead(connection):
            pass
        if len(self._ahead) >= steps:
            through, holds_max = self._ahead[steps - 1], steps * self.every
        else:
            # The last range also has the holds after the last boundary, fewer than `every`.
            through, holds_max = ReleasePosition.end(self.due_by), (len(self._ahead) + 1) * self.every
        hold_range = ReleaseRange(after=self._at, through=through, shard=self.shard)
        self._ahead = self._ahead[steps:]
        self._at = through
        return hold_range, holds_max

    def _read_ahead(self, connection: Connection) -> bool:
        """Read the boundaries after the last known one. Return True if there may be more after these."""
        whole_hours = self._whole_hours
        found = boundaries(
            connection,
            due_by=self.due_by,
            after=self._ahead[-1] if self._ahead else self._at,
            every=self.every,
            boundaries_max=BOUNDARIES_AHEAD,
            shard=self.shard,
            whole_hours=whole_hours,
        )
        self._ahead += found
        # First the hours that have ended, then the hour that contains `due_by`.
        self._whole_hours = whole_hours and len(found) == BOUNDARIES_AHEAD
        return whole_hours or bool(found)
