"""The way of a release run through what is due: stretch by stretch, each as long as is asked for."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from buffer_pipeline.release import ReleasePosition, Shard, Stretch, milestones

MILESTONES_AHEAD: Final = 10_000
"""How many are kept at a time, so that memory does not grow with the backlog."""


@dataclass
class Course:
    """One pass over what is due, the oldest release hour first.

    How long a stretch is has to be known before it is released, without reading its rows: so the
    position of each `every`-th hold is read ahead, from the index. What comes in due meanwhile makes
    a stretch longer; what is frozen makes it shorter.
    """

    due_by: datetime
    shard: Shard
    every: int
    _at: ReleasePosition = field(default_factory=ReleasePosition)
    _ahead: list[ReleasePosition] = field(default_factory=list)
    _whole_hours: bool = True

    def next(self, connection: Connection, *, holds: int) -> tuple[Stretch, int] | None:
        """Return the next stretch of about so many holds and how many it had, at most, when they were
        counted; None behind the last.
        """
        if self._at == ReleasePosition.end(self.due_by):
            return None
        steps = max(1, holds // self.every)
        # Up to the end, which is looked for anew: what has come in since may be more than a batch.
        while len(self._ahead) < steps and self._look_ahead(connection):
            pass
        if len(self._ahead) >= steps:
            through, held = self._ahead[steps - 1], steps * self.every
        else:
            # And what is behind the last milestone.
            through, held = ReleasePosition.end(self.due_by), (len(self._ahead) + 1) * self.every
        stretch = Stretch(after=self._at, through=through, shard=self.shard)
        self._ahead = self._ahead[steps:]
        self._at = through
        return stretch, held

    def _look_ahead(self, connection: Connection) -> bool:
        """Read on behind the last milestone; return whether there may be more behind what was found."""
        whole_hours = self._whole_hours
        found = milestones(
            connection,
            due_by=self.due_by,
            after=self._ahead[-1] if self._ahead else self._at,
            every=self.every,
            milestones_max=MILESTONES_AHEAD,
            shard=self.shard,
            whole_hours=whole_hours,
        )
        self._ahead += found
        # The hours that have ended come first, then the one that has not.
        self._whole_hours = whole_hours and len(found) == MILESTONES_AHEAD
        return whole_hours or bool(found)
