"""Watches the server's sessions: kills some of them, and finds releases that keep their locks."""

import random
import time
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import text

from buffer_pipeline.embedded import DAGSTER
from buffer_pipeline_tests.stress.stage import Round

PLATFORM: Final = "stress_platform"

RELEASE_SECONDS_MAX: Final = 5.0
"""The time limit of a release's transaction. Batches are small here, and one that waits for a lock gives up
after a twentieth of a second.
"""

VERB_SECONDS_MAX: Final = 45.0
"""The time limit of a platform's statement. All other sessions release their locks sooner."""

_SESSIONS: Final = text(
    "SELECT pid, usename, state, wait_event_type, left(query, 60) AS query,"
    " CAST(extract(epoch FROM clock_timestamp() - xact_start) AS float) AS transaction_seconds,"
    " CAST(extract(epoch FROM clock_timestamp() - query_start) AS float) AS statement_seconds"
    " FROM pg_stat_activity WHERE datname = current_database() AND usename = ANY(:users)"
)
_BLOCKERS: Final = text(
    "SELECT waiting.pid, holder.pid AS by_pid, holder.usename AS by_user, holder.state,"
    " left(holder.query, 60) AS query FROM pg_stat_activity AS waiting"
    " CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS by_pid"
    " JOIN pg_stat_activity AS holder ON holder.pid = by_pid WHERE waiting.pid = :pid"
)

LOOK_SECONDS: Final = 0.25
"""The pause between two looks."""


@dataclass
class Stalls:
    """When this process did not run because the machine was busy. Open transactions keep their locks
    meanwhile, through no fault of their own.
    """

    _known: list[tuple[float, float]] = field(default_factory=list)

    def slept(self, began: float, ended: float) -> None:
        """Record a sleep that took twice as long as requested."""
        if ended - began > 2 * LOOK_SECONDS:
            self._known.append((began + LOOK_SECONDS, ended))

    def within(self, began: float, ended: float) -> float:
        """Return the seconds between two moments in which the process did not run."""
        return sum(max(0.0, min(ended, end) - max(began, begin)) for begin, end in self._known)


class Watcher:
    """One thread that watches the sessions."""

    name = "watcher"

    def __init__(self, round_: Round) -> None:
        self._round = round_
        self._trail = round_.findings.trail(self.name)
        self._chance = random.Random(f"{round_.seed} {self.name}")
        self._next_kill = time.monotonic() + 1
        self._reported: set[tuple[int, str]] = set()
        self._stalls = Stalls()

    def work(self) -> None:
        """Look once, kill sometimes, and wait for a moment."""
        with self._round.superuser.connect() as connection:
            sessions = connection.execute(_SESSIONS, {"users": [PLATFORM, DAGSTER]}).mappings().all()
            for session in sessions:
                self._look_at(connection, dict(session))
            if time.monotonic() > self._next_kill:
                busy = [session["pid"] for session in sessions if session["state"] != "idle"]
                if busy:
                    self._kill(connection, self._chance.choice(busy))
                self._next_kill = time.monotonic() + self._chance.uniform(0.3, 3)
            connection.rollback()
        began = time.monotonic()
        time.sleep(LOOK_SECONDS)
        self._stalls.slept(began, time.monotonic())

    def _kill(self, connection: Any, pid: int) -> None:
        # Recorded first, because the killed session's thread may see it before this one continues.
        self._round.ground.presence.killed.add(pid)
        self._trail.note(f"kill {pid}")
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        self._round.tally.count("kill")

    def _look_at(self, connection: Any, session: dict[str, Any]) -> None:
        pid = session["pid"]
        seconds = session["transaction_seconds"] or 0.0
        now = time.monotonic()
        own_seconds = seconds - self._stalls.within(now - seconds, now)
        if session["usename"] == DAGSTER and own_seconds > RELEASE_SECONDS_MAX:
            kind = "a release keeps its locks"
        elif session["state"] == "active" and session["statement_seconds"] > VERB_SECONDS_MAX:
            kind = "a verb does not end"
        else:
            return
        if (pid, kind) not in self._reported:
            self._reported.add((pid, kind))
            blockers = connection.execute(_BLOCKERS, {"pid": pid}).mappings().all()
            self._round.findings.add(kind, str(session), rows=[dict(row) for row in blockers], who=self.name)
