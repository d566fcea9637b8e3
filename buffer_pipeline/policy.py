"""The marketplace's own figures for the rules."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from buffer_pipeline.errors import InvalidInput

BUFFER_DAYS_MAX: Final = 3650
BACKJOBS_PER_JOB_MAX: Final = 1000
COOLDOWN_HOURS_MAX: Final = 43_800
"""Five years. Even BACKJOBS_PER_JOB_MAX rejections stay before the year 10000."""
STUCK_AFTER_HOURS_MAX: Final = 87_600


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How long a hold waits and how often a client may ask. 0 means 0.

    Raises:
        InvalidInput: a figure below zero, or one that could lead out of the calendar.
    """

    buffer_days: int = 7
    cooldown_hours: int = 24
    max_backjobs_per_job: int = 3
    stuck_after_hours: int = 72

    def __post_init__(self) -> None:
        for name, largest in (
            ("buffer_days", BUFFER_DAYS_MAX),
            ("cooldown_hours", COOLDOWN_HOURS_MAX),
            ("max_backjobs_per_job", BACKJOBS_PER_JOB_MAX),
            ("stuck_after_hours", STUCK_AFTER_HOURS_MAX),
        ):
            if not 0 <= getattr(self, name) <= largest:
                raise InvalidInput(f"{name}: must be from 0 to {largest}")

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
