"""Records of each call of a verb and each transaction, as its caller saw them."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import count
from threading import Lock
from typing import Any, Final, TypeAlias

from buffer_pipeline.backjob import Backjob
from buffer_pipeline.errors import Refused
from buffer_pipeline.freeze import Freeze
from buffer_pipeline.intake import AddedHold, Earning
from buffer_pipeline.release import ReleaseBatch
from buffer_pipeline.wallet import Movement

Answer: TypeAlias = (
    Backjob | Freeze | Movement | ReleaseBatch | AddedHold | Refused | list[AddedHold | Refused]
)

TRAIL_LENGTH: Final = 15
LINE_LENGTH: Final = 600

_NUMBERS: Final = count(1)


class Outcome(StrEnum):
    """How a transaction ended, as far as its caller knows."""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    UNKNOWN = "unknown"
    """The session was lost during COMMIT."""


class Kind(StrEnum):
    """How a transaction may affect others."""

    ALONE = "one verb"
    """One verb at READ COMMITTED, which must never end in a deadlock."""
    SEVERAL = "several verbs, or a higher isolation level"
    """PostgreSQL may end it with a deadlock or a serialization failure. Then it is retried."""
    NOTES = "notes"
    """Writes rows of the platform whose foreign keys lock the books' rows FOR KEY SHARE."""
    RELEASE = "release"


@dataclass(kw_only=True)
class Call:
    """One verb with its arguments. Its `now` is unique, so it identifies its rows in the books."""

    verb: str
    arguments: dict[str, Any]
    now: datetime
    number: int = field(default_factory=lambda: next(_NUMBERS))
    answer: Answer | None = None
    serial: int | None = None
    """Its place among all calls, taken while it held its locks (`stress.call`)."""
    undone: bool = False
    """Rolled back by a savepoint."""

    def again(self, now: datetime) -> "Call":
        """Return the same request, to send it once more."""
        return Call(verb=self.verb, arguments=self.arguments, now=now)

    def __str__(self) -> str:
        described = ", ".join(f"{name}={short(value)}" for name, value in self.arguments.items())
        return f"#{self.number} {self.verb}({described}) at {short(self.now)}"[:LINE_LENGTH]


def short(value: object) -> str:
    """Return a short form of a value for a line of a trail."""
    match value:
        case list():
            return f"[{', '.join(map(short, value))}]"
        case Earning():
            money = f"{value.amount} {value.currency}"
            return f"{value.reference}: {value.payer} to {value.payee}, {money}, {value.job}"
        case AddedHold():
            return f"{value.reference} is hold {value.hold_id}, {value.state}{' (replayed)' * value.replayed}"
        case Refused():
            return f"{type(value).__name__}: {value}"
        case datetime():
            return f"{value:%dT%H:%M:%S.%f}"
    return str(value)


@dataclass(kw_only=True)
class Attempt:
    """One transaction: its calls and how it ended."""

    actor: str
    kind: Kind
    isolation: str
    calls: list[Call] = field(default_factory=list)
    outcome: Outcome = Outcome.ROLLED_BACK
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0


class History:
    """The transactions that ended since the last look, from all threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._attempts: list[Attempt] = []

    def add(self, attempt: Attempt) -> None:
        """Add one that has ended, or is about to end."""
        with self._lock:
            self._attempts.append(attempt)

    def take(self) -> list[Attempt]:
        """Return the transactions that were added since the last call."""
        with self._lock:
            taken, self._attempts = self._attempts, []
        return taken


class Trail:
    """The last lines of one thread, to be printed with a finding."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lines: deque[str] = deque(maxlen=TRAIL_LENGTH)

    def note(self, words: str) -> None:
        """Add a line."""
        self._lines.append(f"{time.monotonic():.3f} {words}"[:LINE_LENGTH])

    def last(self, lines: int = TRAIL_LENGTH) -> Sequence[str]:
        """Return the latest lines, oldest first."""
        return list(self._lines)[-lines:]
