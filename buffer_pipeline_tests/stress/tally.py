"""Counts of events. A run without a refusal, kill or retry has tested nothing."""

from collections import Counter
from threading import Lock

from buffer_pipeline.errors import Refused
from buffer_pipeline_tests.stress.record import Call


class Tally:
    """Counts of a run, from all threads."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = Lock()

    def count(self, what: str, times: int = 1) -> None:
        """Count an event."""
        with self._lock:
            self.counts[what] += times

    def answered(self, call: Call) -> None:
        """Count a committed call by its verb, and refusals by their class."""
        self.count(f"verb {call.verb}")
        for answer in call.answer if isinstance(call.answer, list) else [call.answer]:
            if isinstance(answer, Refused):
                self.count(f"refused {type(answer).__name__}")
            elif getattr(answer, "replayed", False):
                self.count("replayed")

    def lines(self) -> list[str]:
        """Return all counts, one per line."""
        return [f"{times:>9,}  {what}" for what, times in sorted(self.counts.items())]
