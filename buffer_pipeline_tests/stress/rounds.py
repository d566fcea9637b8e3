"""A run: rounds on fresh books, until its time is over."""

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import cycle
from typing import Final, TextIO

from sqlalchemy import Engine, make_url, text

from buffer_pipeline.audit.seals import Anchor, verify
from buffer_pipeline.database import make_engine, snapshot
from buffer_pipeline.embedded import DAGSTER, EmbeddedServer
from buffer_pipeline_tests.stress.actors import Actor
from buffer_pipeline_tests.stress.books import Audit
from buffer_pipeline_tests.stress.findings import Findings
from buffer_pipeline_tests.stress.market import Market
from buffer_pipeline_tests.stress.releasing import Releaser
from buffer_pipeline_tests.stress.stage import Gate, Mode, Round, Worker
from buffer_pipeline_tests.stress.stall import Stall
from buffer_pipeline_tests.stress.tally import Tally
from buffer_pipeline_tests.stress.transactions import PREPARE, Ground
from buffer_pipeline_tests.stress.watcher import PLATFORM, Watcher
from buffer_pipeline_tests.support.databases import fresh_books

SECONDS_BETWEEN_COMPARISONS: Final = 6.0
RELEASERS: Final = 2
JOIN_SECONDS_MAX: Final = 30
SEAL_SECONDS_MAX: Final = 20.0
FAR: Final = timedelta(days=60)
"""After every release date; used at the end of a round."""


@dataclass(kw_only=True)
class Run:
    """Rounds on a server, for a number of seconds."""

    server: EmbeddedServer
    seed: int
    seconds: float
    threads: int = 8
    round_seconds: float = 60.0
    findings: Findings = field(default_factory=Findings)
    tally: Tally = field(default_factory=Tally)
    out: TextIO | None = None
    disturb: Callable[[Engine], None] = lambda _superuser: None
    """Called before each comparison. Tests of the harness corrupt the books here."""

    def go(self) -> None:
        """Run rounds, in each mode in turn. `findings` has the results."""
        self._make_platform()
        end = time.monotonic() + self.seconds
        for number, mode in enumerate(cycle(Mode)):
            left = end - time.monotonic()
            # A shorter round would hardly begin.
            if number and left < self.round_seconds / 4:
                return
            self._round(number, mode, seconds=min(left, self.round_seconds))

    def _make_platform(self) -> None:
        admin = make_engine(self.server.url("postgres", user="postgres"))
        with admin.begin() as connection:
            if not connection.scalar(text("SELECT to_regrole(:name)"), {"name": PLATFORM}):
                connection.execute(text(f"CREATE ROLE {PLATFORM} LOGIN IN ROLE buffer_platform"))
        admin.dispose()

    def _round(self, number: int, mode: Mode, *, seconds: float) -> None:
        seed = f"{self.seed}/{number}"
        self.findings.heading = f"round {seed}: {mode}"
        self.findings.trails.clear()
        began, before = time.monotonic(), self.tally.counts.copy()
        with fresh_books(self.server) as url, self._engines(url) as (owner, platform, releaser, superuser):
            with superuser.begin() as connection:
                for statement in PREPARE:
                    connection.execute(text(statement))
            round_ = Round(
                seed=seed,
                mode=mode,
                platform=platform,
                releaser=releaser,
                superuser=superuser,
                market=Market(seed),
                ground=Ground(),
                gate=Gate(),
                findings=self.findings,
                tally=self.tally,
            )
            audit = Audit(engine=owner, findings=self.findings, tally=self.tally)
            self._play(round_, audit, end=began + seconds)
            if mode is Mode.ALONE:
                self._require_no_deadlock(round_)
        done = self.tally.counts - before
        verbs = sum(times for what, times in done.items() if what.startswith("verb "))
        self._say(
            f"round {seed} ({mode}): {time.monotonic() - began:.0f} s, {verbs:,} verbs committed,"
            f" {done['holds released']:,} holds released, {done['kill']} sessions killed,"
            f" findings so far: {sum(self.findings.counts.values())}"
        )

    def _play(self, round_: Round, audit: Audit, *, end: float) -> None:
        actors = [Actor(round_, f"actor-{number}") for number in range(self.threads)]
        releasers = [Releaser(round_, f"releaser-{number}") for number in range(RELEASERS)]
        stall = Stall(round_)
        watcher = Watcher(round_)
        workers: list[Worker] = [*actors, *releasers, watcher]
        threads = [round_.thread(worker) for worker in workers]
        clean = True
        try:
            for thread in threads:
                thread.start()
            while clean and (left := end - time.monotonic()) > 0:
                round_.gate.open()
                time.sleep(min(SECONDS_BETWEEN_COMPARISONS, left))
                clean = self._compare(round_, audit)
        finally:
            round_.gate.stop()
            deadline = time.monotonic() + JOIN_SECONDS_MAX
            for thread in threads:
                thread.join(timeout=max(0.0, deadline - time.monotonic()))
            for actor in actors:
                actor.sessions.close()
        if clean:
            self._end(round_, audit, stall)
        stall.close()

    def _compare(self, round_: Round, audit: Audit) -> bool:
        """Compare the books with the oracle while all threads pause; return False if the round must end."""
        if not round_.gate.close():
            self._tell_who_hangs(round_)
            return False
        self.disturb(round_.superuser)
        return audit.compare(round_.ground.history.take())

    def _end(self, round_: Round, audit: Audit, stall: Stall) -> None:
        """Release while wallets are locked, and then everything else: only frozen holds remain."""
        stall.run(audit.oracle)
        if not audit.compare(round_.ground.history.take()):
            return
        round_.market.clock.leap(FAR)
        last = Releaser(round_, "last release")
        last.drain(workers=1)
        last.seal(wait_seconds=SEAL_SECONDS_MAX)
        audit.compare(round_.ground.history.take())
        self._verify(audit, round_.anchors)
        left = audit.oracle.due(round_.market.clock.read())
        if left:
            self.findings.add("due, and not released", f"{len(left)} holds", rows=left)

    def _verify(self, audit: Audit, anchors: list[Anchor]) -> None:
        """Find differences from the seals, besides the transactions that were writing then."""
        with snapshot(audit.engine) as connection:
            verified = verify(connection, anchors=anchors)
        if verified.offence or verified.unsealed:
            self.findings.add("not as it was sealed", f"{verified.offence}; {verified.unsealed} not sealed")
        self.tally.count("seal", verified.seals)

    def _require_no_deadlock(self, round_: Round) -> None:
        """Find deadlocks that no caller saw: a release retries its batch after one."""
        for engine in (round_.platform, round_.releaser):
            engine.dispose()
        with round_.superuser.connect() as connection:
            deadlocks = connection.scalar(
                text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            )
        if deadlocks:
            self.findings.add("deadlock of single verbs", f"PostgreSQL counted {deadlocks} in this round")

    def _tell_who_hangs(self, round_: Round) -> None:
        with round_.superuser.connect() as connection:
            sessions = connection.execute(
                text(
                    "SELECT pid, usename, state, wait_event, pg_blocking_pids(pid), left(query, 80)"
                    " FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'"
                )
            ).all()
        self.findings.add("a thread hangs", "; ".join(_stacks()), rows=sessions)

    @contextmanager
    def _engines(self, url: str) -> Iterator[tuple[Engine, Engine, Engine, Engine]]:
        """Yield engines for the books' owner, the platform, the releases and the superuser."""
        books = make_url(url)
        engines = [
            make_engine(books if user is None else books.set(username=user))
            for user in (None, PLATFORM, DAGSTER, "postgres")
        ]
        try:
            yield engines[0], engines[1], engines[2], engines[3]
        finally:
            for engine in engines:
                engine.dispose()

    def _say(self, words: str) -> None:
        print(words, file=self.out, flush=True)


def _stacks() -> list[str]:
    """Return the stack of each of our threads."""
    import sys

    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return [
        f"{names.get(ident)}: {' < '.join(f'{entry.name}:{entry.lineno}' for entry in reversed(stack[-4:]))}"
        for ident, frame in sys._current_frames().items()
        if (stack := traceback.extract_stack(frame))
    ]
