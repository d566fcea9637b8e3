"""A circuit breaker: after failures nothing is sent for a while, then one message is tried."""

from typing import Final

from buffer_pipeline.notifications.retry import GIVE_UP_AFTER

FAILURES_MAX: Final = 5
PAUSE_SECONDS: Final = 30.0


class Breaker:
    """Closed until FAILURES_MAX failures in a row. Then open for a while, until a probe decides.

    Times are seconds of a monotonic clock, which the caller reads.
    """

    open_until: float | None = None
    """When a probe may be sent; None while the breaker is closed. A drain sets what an earlier one stored."""

    def __init__(self, *, failures_max: int = FAILURES_MAX, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._failures_max = failures_max
        self._pause_seconds = pause_seconds
        self._failures = 0
        self._asked_until = 0.0

    def is_closed(self) -> bool:
        """Return whether any message may be sent, not only a probe."""
        return self.open_until is None

    def seconds_to_probe(self, *, now: float) -> float:
        """Return how long to wait before a probe; 0 if it may be sent now, or the breaker is closed."""
        return 0.0 if self.open_until is None else max(0.0, self.open_until - now)

    def succeeded(self) -> None:
        """Close the breaker: the receiver answered, even if it refused a message."""
        self._failures = 0
        self._asked_until = 0.0
        self.open_until = None

    def failed(self, *, now: float, pause_seconds: float | None = None) -> None:
        """Count a failure: the receiver does not answer, or asks for a pause of `pause_seconds`.

        Of the pauses that failures in a row ask for, the longest counts, up to the three days after which
        messages are given up. While the breaker is open, the failure of a message that was being sent can
        only extend the pause that was asked for. A probe that fails opens the breaker again.
        """
        self._failures += 1
        asked_seconds = min(pause_seconds or 0.0, GIVE_UP_AFTER.total_seconds())
        self._asked_until = max(self._asked_until, now + asked_seconds)
        if self.seconds_to_probe(now=now) > 0:
            self.open_until = max(self.open_until or 0.0, self._asked_until)
        elif self._failures >= self._failures_max or self.open_until is not None:
            self.open_until = max(now + self._pause_seconds, self._asked_until)
