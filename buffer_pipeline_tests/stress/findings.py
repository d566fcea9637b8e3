"""What was found: what must never happen and did."""

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
    """Something that must never happen: its kind, and the facts of this case."""

    kind: str
    message: str


class Findings:
    """All findings of a run.

    Each is printed at once, with what the threads did last. Of a kind only the first few are printed, the
    rest is counted.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.shown: list[Finding] = []
        self.trails: dict[str, Trail] = {}
        self.heading = ""
        """Which round it is: its number, seed and mode."""
        self._out = out or sys.stdout
        self._lock = Lock()

    def trail(self, name: str) -> Trail:
        """Return a new trail, to be printed with each finding."""
        self.trails[name] = Trail(name)
        return self.trails[name]

    def add(self, kind: str, message: str, *, rows: Sequence[object] = (), who: str | None = None) -> None:
        """Note what was found: `rows` are the books' that are concerned, `who` is the thread that saw it."""
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
