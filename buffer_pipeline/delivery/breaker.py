"""A circuit breaker: what nobody answers is left alone for a while, then tried with one message."""

from typing import Final

from buffer_pipeline.delivery.retry import GIVE_UP_AFTER

FAILURES_MAX: Final = 5
PAUSE_SECONDS: Final = 30.0


class Breaker:
    """Closed until FAILURES_MAX failures in a row; then open for a while; then one probe decides.

    Times are seconds of a monotonic clock, given by the caller.
    """

    open_until: float | None = None
    """When a probe may be sent; None while it is closed. Set what an earlier drain knew."""

    def __init__(self, *, failures_max: int = FAILURES_MAX, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._failures_max = failures_max
        self._pause_seconds = pause_seconds
        self._failures = 0
        self._asked_until = 0.0

    def is_closed(self) -> bool:
        """Return whether messages may be sent as they come."""
        return self.open_until is None

    def seconds_to_probe(self, *, now: float) -> float:
        """Return how long to wait before a probe; 0 when it may be sent, or none is needed."""
        return 0.0 if self.open_until is None else max(0.0, self.open_until - now)

    def succeeded(self) -> None:
        """The receiver answered: whatever it said of a message, it is there."""
        self._failures = 0
        self._asked_until = 0.0
        self.open_until = None

    def failed(self, *, now: float, pause_seconds: float | None = None) -> None:
        """The receiver is not there, or asks to be left alone for `pause_seconds`.

        The longest of what was asked for in a row counts, up to the three days after which messages are
        given up. What was under way when it opened changes nothing else; a probe that fails opens it anew.
        """
        self._failures += 1
        asked_seconds = min(pause_seconds or 0.0, GIVE_UP_AFTER.total_seconds())
        self._asked_until = max(self._asked_until, now + asked_seconds)
        if self.seconds_to_probe(now=now) > 0:
            self.open_until = max(self.open_until or 0.0, self._asked_until)
        elif self._failures >= self._failures_max or self.open_until is not None:
            self.open_until = max(now + self._pause_seconds, self._asked_until)
