"""Findings: things that must never happen and did."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final, TextIO

from buffer_pipeline_tests.stress.record import Trail

SHOWN_OF_A_KIND: Final = 3
ROWS_SHOWN: Final = 10
OTHERS_LINES: Final = 3


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding: its kind and its facts."""

    kind: str
    message: str


class Findings:
    """All findings of a run. Each is printed at once with the last actions of the threads. Of each kind only
    the first few are printed; the rest are counted.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.shown: list[Finding] = []
        self.trails: dict[str, Trail] = {}
        self.heading = ""
        """The round: its number, seed and mode."""
        self._out = out or sys.stdout
        self._lock = Lock()

    def trail(self, name: str) -> Trail:
        """Return a new trail that is printed with each finding."""
        self.trails[name] = Trail(name)
        return self.trails[name]

    def add(self, kind: str, message: str, *, rows: Sequence[object] = (), who: str | None = None) -> None:
        """Record a finding. `rows` are the rows of the books, `who` is the thread that found it."""
        with self._lock:
            self.counts[kind] += 1
            if self.counts[kind] > SHOWN_OF_A_KIND:
                return
            self.shown.append(Finding(kind=kind, message=message))
            lines = [f"FINDING: {kind} ({self.heading})", f"  {message}"]
            lines += [f"  row: {row}" for row in rows[:ROWS_SHOWN]]
            if len(rows) > ROWS_SHOWN:
                lines.append(f"  … and {len(rows) - ROWS_SHOWN} more rows")
            for name, trail in list(self.trails.items()):
                last = trail.last() if name == who else trail.last(OTHERS_LINES)
                lines += [f"  {name}: {line}" for line in last]
            self._out.write("\n".join(lines) + "\n")
            self._out.flush()
