"""Releases what is due repeatedly, like the hourly job, and records each batch."""

import random
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from buffer_pipeline.audit.seals import seal
from buffer_pipeline.release import ReleaseBatch
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.release_run.worker_pool import ReleaseRun
from buffer_pipeline_tests.stress.record import Attempt, Call, Kind, Outcome
from buffer_pipeline_tests.stress.sessions import READ_COMMITTED, driver_error, is_lost
from buffer_pipeline_tests.stress.stage import Round
from buffer_pipeline_tests.stress.transactions import SERIAL

BATCH_LIMITS: Final = (20, 100, 1_000)


class Releaser:
    """One thread that releases what is due."""

    def __init__(self, round_: Round, name: str) -> None:
        self.name = name
        self._round = round_
        self._trail = round_.findings.trail(name)
        self._chance = random.Random(f"{round_.seed} {name}")

    def work(self) -> None:
        """Release what is due now, and seal sometimes. One run in ten is dry, and one in ten has a limit."""
        kills = len(self._round.ground.presence.killed)
        try:
            self.drain(
                workers=self._chance.choice((1, 2)),
                dry_run=self._chance.random() < 0.1,
                limit=15 if self._chance.random() < 0.1 else None,
            )
            if self._chance.random() < 0.3:
                self.seal()
        except Exception as error:
            caused = driver_error(error)
            # The session may have been killed.
            killed = self._round.servers_fail or kills < len(self._round.ground.presence.killed)
            if caused is None or not is_lost(caused) or not killed:
                raise
            self._round.tally.count("release killed")
        time.sleep(self._chance.uniform(0.05, 0.6))

    def drain(self, *, workers: int, dry_run: bool = False, limit: int | None = None) -> ReleaseRun:
        """Release everything that is due now, or some of it."""
        due_by = self._round.market.clock.read()
        self._trail.note(f"release by {due_by}, workers {workers}, limit {limit}, dry run {dry_run}")
        batches: dict[int | None, Attempt] = {}

        def on_batch(connection: Connection, batch: ReleaseBatch) -> None:
            batches[batch.batch_id] = self._record(connection, batch, due_by=due_by)

        def after_batch(batch: ReleaseBatch) -> None:
            attempt = batches[batch.batch_id]
            attempt.outcome = Outcome.ROLLED_BACK if dry_run else Outcome.COMMITTED
            attempt.ended = time.monotonic()

        run = release_all_due(
            self._round.releaser,
            due_by=due_by,
            source=self.name,
            batch_limit=self._chance.choice(BATCH_LIMITS),
            limit=limit,
            dry_run=dry_run,
            workers=workers,
            clock=self._clock(),
            on_batch=on_batch,
            after_batch=after_batch,
        )
        self._trail.note(f"released {run.holds_released} in {run.batches} batches")
        self._round.tally.count("release ended")
        self._round.tally.count("holds released", 0 if dry_run else run.holds_released)
        return run

    def seal(self, *, wait_seconds: float = 1.0) -> None:
        """Seal what is written, unless transactions that have been open longer may still write
        older lines.
        """
        sealed = seal(self._round.releaser, wait_seconds=wait_seconds)
        self._trail.note(f"sealed {sealed.lines} lines, {sealed.anchor}")
        if sealed.anchor is not None:
            self._round.anchors.append(sealed.anchor)

    def _clock(self) -> Callable[[Connection], datetime]:
        return lambda _connection: self._round.market.clock.read()

    def _record(self, connection: Connection, batch: ReleaseBatch, *, due_by: datetime) -> Attempt:
        """Record a batch in its own transaction, which may still be rolled back."""
        call = Call(verb="release", arguments={"due_by": due_by}, now=due_by, answer=batch)
        rows = connection.exec_driver_sql(SERIAL, {"call": call.number}).all()
        call.serial = rows[0][0]
        attempt = Attempt(
            actor=self.name,
            kind=Kind.RELEASE,
            isolation=READ_COMMITTED,
            calls=[call],
            outcome=Outcome.UNKNOWN,
        )
        self._round.ground.history.add(attempt)
        self._trail.note(f"#{call.number} batch {batch}")
        return attempt
