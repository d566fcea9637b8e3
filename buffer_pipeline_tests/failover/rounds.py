"""Rounds of load and faults on the same books, with a comparison at the end of each."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Final, TextIO

import psycopg
from sqlalchemy import text

from buffer_pipeline.audit.seals import verify
from buffer_pipeline.database import make_engine, snapshot
from buffer_pipeline.embedded import DAGSTER
from buffer_pipeline.release_run.worker_pool import ReleaseRun
from buffer_pipeline_tests.failover.faults import FAULTS, Fault
from buffer_pipeline_tests.failover.rig import Rig, wait_for
from buffer_pipeline_tests.stress.actors import Actor
from buffer_pipeline_tests.stress.books import Audit
from buffer_pipeline_tests.stress.findings import Findings
from buffer_pipeline_tests.stress.market import Market
from buffer_pipeline_tests.stress.releasing import Releaser
from buffer_pipeline_tests.stress.stage import Gate, Mode, Round, Worker
from buffer_pipeline_tests.stress.tally import Tally
from buffer_pipeline_tests.stress.transactions import PREPARE, Ground
from buffer_pipeline_tests.stress.watcher import PLATFORM
from buffer_pipeline_tests.support.cluster import make_books

BEFORE_SECONDS: Final = 4.0
AFTER_SECONDS: Final = 3.0
AGAIN_SECONDS_MAX: Final = 120.0
SEAL_SECONDS_MAX: Final = 20.0
JOIN_SECONDS_MAX: Final = 60.0


class TimedReleaser(Releaser):
    """A releaser that records when its last non-empty release began."""

    last_began = 0.0

    def drain(self, *, workers: int, dry_run: bool = False, limit: int | None = None) -> ReleaseRun:
        """Release everything that is due now, or some of it."""
        began = time.monotonic()
        run = super().drain(workers=workers, dry_run=dry_run, limit=limit)
        if run.holds_released and not dry_run:
            self.last_began = began
        return run


@dataclass(kw_only=True)
class Run:
    """A number of rounds on a cluster, with a fault in each."""

    rig: Rig
    seed: int
    rounds: int
    faults: Sequence[Fault] = FAULTS
    threads: int = 12
    findings: Findings = field(default_factory=Findings)
    tally: Tally = field(default_factory=Tally)
    seconds: list[float] = field(default_factory=list)
    """For each fault, the seconds to the end of the first later release that released something."""
    out: TextIO | None = None

    def go(self) -> None:
        """Run the rounds. `findings` has the results."""
        make_books(self.rig.server)
        engines = {user: make_engine(self.rig.server.url("buffer", user=user)) for user in _USERS}
        with engines["postgres"].begin() as connection:
            connection.execute(text(f"CREATE ROLE {PLATFORM} LOGIN IN ROLE buffer_platform"))
            for statement in PREPARE:
                connection.execute(text(statement))
        round_ = Round(
            seed=str(self.seed),
            mode=Mode.ALONE,
            platform=engines[PLATFORM],
            releaser=engines[DAGSTER],
            superuser=engines["postgres"],
            market=Market(str(self.seed)),
            ground=Ground(),
            gate=Gate(),
            findings=self.findings,
            tally=self.tally,
            servers_fail=True,
        )
        try:
            self._play(round_, Audit(engine=engines["buffer"], findings=self.findings, tally=self.tally))
        finally:
            for engine in engines.values():
                engine.dispose()

    def _play(self, round_: Round, audit: Audit) -> None:
        actors = [Actor(round_, f"actor-{number}") for number in range(self.threads)]
        releaser = TimedReleaser(round_, "releaser")
        workers: list[Worker] = [*actors, releaser]
        threads = [round_.thread(worker) for worker in workers]
        for thread in threads:
            thread.start()
        try:
            for number, fault in enumerate(islice(cycle(self.faults), self.rounds), start=1):
                self.findings.heading = f"round {number}: {fault.name}"
                before, began = self.tally.counts.copy(), time.monotonic()
                again = self._strike(releaser, fault)
                if not self._compare(round_, audit):
                    return
                self._tell(number, fault, self.tally.counts - before, again=again, began=began)
                round_.gate.open()
        finally:
            round_.gate.stop()
            for thread in threads:
                thread.join(timeout=JOIN_SECONDS_MAX)
            for actor in actors:
                actor.sessions.close()

    def _strike(self, releaser: TimedReleaser, fault: Fault) -> float:
        """Cause the fault and repair it under load; return the seconds until releases worked again."""
        time.sleep(BEFORE_SECONDS)
        primary = self.rig.primary()
        put_right = fault.strike(self.rig)
        began = time.monotonic()
        try:
            if fault.moves:
                self._wait(lambda: self.rig.primary() != primary, what=f"{fault.name}: no other primary")
            elif fault.seconds is not None:
                time.sleep(fault.seconds)
            if fault.seconds is None:
                self._wait_for_release(releaser, fault)
        finally:
            put_right()
        if fault.seconds is not None:
            self._wait_for_release(releaser, fault)
        again = time.monotonic() - began
        self.seconds.append(again)
        self.rig.wait_until_whole()
        time.sleep(AFTER_SECONDS)
        return again

    def _wait_for_release(self, releaser: TimedReleaser, fault: Fault) -> None:
        """Wait for a release that begins after now and releases something."""
        now = time.monotonic()
        self._wait(lambda: releaser.last_began > now, what=f"{fault.name}: no release goes")

    def _wait(self, condition: Callable[[], bool], *, what: str) -> None:
        def holds() -> bool:
            try:
                return condition()
            except psycopg.OperationalError:  # There is no primary yet.
                return False

        wait_for(holds, AGAIN_SECONDS_MAX, what=what)

    def _compare(self, round_: Round, audit: Audit) -> bool:
        """Seal, and compare the books with the answers, while all threads pause."""
        if not round_.gate.close():
            self.findings.add("a thread hangs", "it does not come to the end of its transaction")
            return False
        releaser = Releaser(round_, "sealer")
        releaser.seal(wait_seconds=SEAL_SECONDS_MAX)
        # A pooled connection may lead to a server that is gone.
        audit.engine.dispose()
        clean = audit.compare(round_.ground.history.take())
        with snapshot(audit.engine) as connection:
            verified = verify(connection, anchors=round_.anchors)
        if verified.offence or verified.unsealed:
            self.findings.add("not as it was sealed", f"{verified.offence}; {verified.unsealed} not sealed")
            return False
        return clean

    def _tell(self, number: int, fault: Fault, done: Counter[str], *, again: float, began: float) -> None:
        acknowledged = sum(times for what, times in done.items() if what.startswith("verb "))
        print(
            f"round {number} ({fault.name}): {time.monotonic() - began:.0f} s, releases again after"
            f" {again:.0f} s, {acknowledged:,} calls acknowledged, {done['replayed']:,} of them replays,"
            f" {done['holds released']:,} holds released, primary {self.rig.primary()},"
            f" findings so far: {sum(self.findings.counts.values())}",
            file=self.out,
            flush=True,
        )

    def summary(self) -> str:
        """Return the counts of all rounds."""
        counts = self.tally.counts
        acknowledged = sum(times for what, times in counts.items() if what.startswith("verb "))
        seconds = f"{min(self.seconds):.0f} to {max(self.seconds):.0f}" if self.seconds else "-"
        return (
            f"{len(self.seconds)} rounds, {acknowledged:,} calls acknowledged, {counts['holds released']:,}"
            f" holds released, releases again after {seconds} s"
        )


_USERS: Final = ("buffer", PLATFORM, DAGSTER, "postgres")
