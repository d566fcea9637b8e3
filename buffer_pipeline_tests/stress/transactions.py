"""One transaction: it opens a session, calls verbs, and records how it ended."""

import time
from collections import deque
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from buffer_pipeline_tests.stress.record import Attempt, Call, History, Kind, Outcome, Trail, short
from buffer_pipeline_tests.stress.sessions import Session, Sessions, driver_error
from buffer_pipeline_tests.stress.verbs import perform

PREPARE: Final = (
    "CREATE SCHEMA stress",
    # A row is written with a call's rows and while the call holds its locks. So of two calls that want the
    # same lock, the first one has the lower serial.
    "CREATE TABLE stress.call (serial bigint GENERATED ALWAYS AS IDENTITY, call bigint PRIMARY KEY)",
    # A table of the platform, with foreign keys to the books.
    "CREATE TABLE stress.note"
    " (wallet_id bigint REFERENCES buffer.wallet, hold_id bigint REFERENCES buffer.hold)",
    "GRANT USAGE ON SCHEMA stress TO PUBLIC",
    "GRANT SELECT, INSERT ON stress.call, stress.note TO PUBLIC",
)
SERIAL: Final = "INSERT INTO stress.call (call) VALUES (%(call)s) RETURNING serial"


class Presence:
    """The latest transactions of each server process: kind, beginning and end."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._of_pid: dict[int, deque[Attempt]] = {}
        self.killed: set[int] = set()

    def enter(self, pid: int, attempt: Attempt) -> None:
        """Record that a transaction has begun."""
        with self._lock:
            self._of_pid.setdefault(pid, deque(maxlen=8)).append(attempt)

    def during(self, pid: int, *, since: float) -> list[Attempt]:
        """Return the transactions of a process that had not ended before `since`."""
        with self._lock:
            known = list(self._of_pid.get(pid, ()))
        return [attempt for attempt in known if not attempt.ended or attempt.ended >= since]


@dataclass
class Ground:
    """What every transaction of a round needs."""

    history: History = field(default_factory=History)
    presence: Presence = field(default_factory=Presence)


class Transaction:
    """A transaction in progress, used as a context. It is rolled back at the end unless it was committed."""

    def __init__(
        self,
        ground: Ground,
        sessions: Sessions,
        trail: Trail,
        *,
        kind: Kind,
        isolation: str,
        psycopg_own: bool = False,
    ) -> None:
        self._ground = ground
        self._trail = trail
        self.attempt = Attempt(actor=trail.name, kind=kind, isolation=isolation)
        self.session: Session = sessions.open(isolation, psycopg_own=psycopg_own)
        ground.presence.enter(self.session.pid, self.attempt)
        trail.note(f"begin: pid {self.session.pid}, {kind}, {isolation}")

    def __enter__(self) -> "Transaction":
        return self

    def __exit__(self, *_error: object) -> None:
        try:
            self.session.close()
        finally:
            self.attempt.ended = time.monotonic()
            self._ground.history.add(self.attempt)
            self._trail.note(f"end: {self.attempt.outcome}")

    def perform(self, call: Call) -> None:
        """Run a call, and record its serial while it holds its locks."""
        self._trail.note(str(call))
        self.attempt.calls.append(call)
        perform(self.session.connection, call)
        self._trail.note(f"#{call.number} -> {short(call.answer)}")
        call.serial = self.session.execute(SERIAL, {"call": call.number})[0][0]

    def execute(self, statement: str, parameters: dict[str, object] | None = None) -> None:
        """Run a statement of the platform."""
        self._trail.note(f"{statement} {parameters or ''}")
        self.session.execute(statement, parameters)

    def undo(self, savepoint: str, calls_before: int) -> None:
        """Roll back to a savepoint, which had this many calls before it."""
        self.execute(f"ROLLBACK TO SAVEPOINT {savepoint}")
        for call in self.attempt.calls[calls_before:]:
            call.undone = True

    def commit(self) -> None:
        """Commit. If the session is lost meanwhile, the outcome is unknown."""
        self.attempt.outcome = Outcome.UNKNOWN
        try:
            self.session.commit()
        except Exception as error:
            caused = driver_error(error)
            if caused is not None and caused.sqlstate is not None and not caused.sqlstate.startswith("57"):
                # PostgreSQL refused the commit.
                self.attempt.outcome = Outcome.ROLLED_BACK
            raise
        self.attempt.outcome = Outcome.COMMITTED
