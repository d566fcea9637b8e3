"""The marketplace's own figures for the rules."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How long a hold waits and how often a client may ask. 0 means 0."""

    buffer_days: int = 7
    cooldown_hours: int = 24
    max_backjobs_per_job: int = 3
    stuck_after_hours: int = 72

    @property
    def buffer(self) -> timedelta:
        """From `held_at` to the release date."""
        return timedelta(days=self.buffer_days)

    @property
    def cooldown(self) -> timedelta:
        """What a rejected backjob adds to the release date."""
        return timedelta(hours=self.cooldown_hours)

    @property
    def stuck_after(self) -> timedelta:
        """How long a hold may stay frozen before it counts as stuck."""
        return timedelta(hours=self.stuck_after_hours)
