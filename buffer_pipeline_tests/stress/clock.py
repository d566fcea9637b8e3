"""The clock of the marketplace: much faster than the real one, with unique readings."""

import time
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final

HOURS_PER_SECOND: Final = 1.0
FIRST: Final = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


class Clock:
    """Each reading is later than the one before, so it identifies its reader."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._began = time.monotonic()
        self._last = FIRST
        self._ahead = timedelta(0)

    def read(self) -> datetime:
        """Return the time. No other call gets the same one."""
        with self._lock:
            elapsed = timedelta(hours=(time.monotonic() - self._began) * HOURS_PER_SECOND)
            self._last = max(FIRST + elapsed + self._ahead, self._last + timedelta(microseconds=1))
            return self._last

    def leap(self, ahead: timedelta) -> None:
        """Advance the time."""
        with self._lock:
            self._ahead += ahead
