"""Rules that move the clock and release holds."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import rule

from buffer_pipeline.errors import Refused
from buffer_pipeline.hold import HoldState
from buffer_pipeline.release import ReleaseBatch, part_wallets, release_matured, release_range
from buffer_pipeline.release_run.ranges import RangePlanner
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.release_run.worker_pool import ReleaseRun
from buffer_pipeline.shares import ShareKind
from buffer_pipeline_tests.support.machine.comparing import FINAL
from buffer_pipeline_tests.support.machine.drawn import AGO, HOUR, PICK, TICK, choose
from buffer_pipeline_tests.support.machine.earning import EarningRules
from buffer_pipeline_tests.support.model.backjobs import PAYEES

SOURCE: Final = "a test"


class ReleaseRules(EarningRules):
    """The clock advances, and due holds are released."""

    @rule(
        way=st.sampled_from(["before", "at", "after", "minutes", "hours", "days"]),
        number=st.integers(1, 30),
        pick=PICK,
    )
    def wait(self, way: str, number: int, pick: int) -> None:
        """Advance to just before, exactly, or just after one of the next release dates, or further."""
        ahead = sorted(
            hold.release_date for hold in self.model.unsettled() if hold.release_date > self.now + TICK
        )
        if way in ("before", "at", "after") and ahead:
            self.now = choose(ahead[:4], pick) + {"before": -TICK, "at": timedelta(0), "after": TICK}[way]
            return
        unit = {"minutes": timedelta(minutes=1), "days": timedelta(hours=6)}.get(way, HOUR)
        self.now += number * unit

    @rule(
        way=st.sampled_from(["release_matured"] * 3 + ["release_range"] * 2 + ["release_all_due"] * 2),
        waits=st.sampled_from([True, True, True, False]),
        holds=st.sampled_from([1, 1, 2, 3, 1000]),
        limit=st.sampled_from([None, None, 1, 3]),
        parts=st.integers(1, 2),
        dry_run=st.sampled_from([False, False, False, True]),
        ago=AGO,
        pick=PICK,
    )
    def release(
        self,
        way: str,
        waits: bool,
        holds: int,
        limit: int | None,
        parts: int,
        dry_run: bool,
        ago: timedelta,
        pick: int,
    ) -> None:
        """Release what is due by now or an earlier time; mostly if something is due."""
        if not self.model.unsettled():
            self._new_job(pick)
        if waits and not self.model.due(self.now - ago):
            dates = [hold.release_date for hold in self.model.unsettled() if hold.state is HoldState.BUFFERED]
            self.now = max([self.now, *[date + ago for date in sorted(dates)[:2]]])
        by = self.now - ago
        if way == "release_matured":
            real = self._committed(
                lambda connection: release_matured(
                    connection, now=self.now, batch_limit=holds, due_by=by if ago else None
                )
            )
            self._release(way, real, by=by, limit=holds)
        elif way == "release_range":
            self._release(way, partial(self._release_ranges, by, holds, parts), by=by, limit=None)
        else:
            self._release(
                "release_all_due, dry" if dry_run else way,
                partial(
                    release_all_due,
                    self.books.engine,
                    due_by=by,
                    source=SOURCE,
                    batch_limit=holds,
                    limit=limit,
                    # Which holds several workers leave at a limit depends on timing, so no sequence could
                    # repeat it.
                    workers=parts if limit is None else 1,
                    dry_run=dry_run,
                    clock=lambda _connection: self.now,
                ),
                by=by,
                limit=limit,
                dry_run=dry_run,
            )

    def _release_ranges(self, by: datetime, holds: int, parts: int) -> ReleaseBatch:
        """As a run does, but with closer boundaries."""
        connection = self.books.connection
        released, amounts_minor = 0, Counter[str]()
        with connection.begin():
            shards = part_wallets(connection, due_by=by, shards=parts)
        for shard in shards:
            planner = RangePlanner(due_by=by, shard=shard, every=min(holds, 2))
            while True:
                with connection.begin():
                    ahead = planner.next(connection, holds=holds)
                if ahead is None:
                    break
                hold_range, held = ahead
                with connection.begin():
                    batch = release_range(
                        connection, hold_range=hold_range, now=self.now, due_by=by, source=SOURCE
                    )
                assert batch.holds_released <= held
                released += batch.holds_released
                amounts_minor.update(batch.amounts_minor)
        return ReleaseBatch(holds_released=released, amounts_minor=dict(amounts_minor))

    def _release(
        self,
        verb: str,
        real: Callable[[], ReleaseBatch | ReleaseRun | Refused],
        *,
        by: datetime,
        limit: int | None,
        dry_run: bool = False,
    ) -> None:
        waited = [hold_id for hold_id, hold in self.seen.holds.items() if hold.state not in FINAL]

        def model(got: ReleaseBatch | ReleaseRun | None) -> str:
            assert got is not None
            due = self.model.due(by)
            if dry_run:
                assert got.holds_released == (len(due) if limit is None else min(limit, len(due)))
                return "nothing"
            released = {
                hold_id: self.seen.batches[hold_id]
                for hold_id in waited
                if self.seen.holds[hold_id].state is HoldState.RELEASED
            }
            amounts_minor: Counter[str] = Counter()
            for hold in due:
                if hold.hold_id in released:
                    amounts_minor[hold.intake.currency] += hold.held_minor
                    self._reach("a part is refunded, the rest released", hold.refunded_minor > 0)
                    alone = hold.earning.first.settled is not None
                    self._reach("a reserve is all that is left", hold.kind is ShareKind.RESERVE and alone)
                    notified = hold.kind not in PAYEES and hold.owner in self.model.wants_messages_of_shares
                    self._reach("an owner of fees is notified", notified)
            self.model.release_due(by=by, now=self.now, limit=limit, released=released)
            assert (got.holds_released, got.amounts_minor) == (len(released), amounts_minor)
            self._reach("a release leaves due holds", len(due) > len(released) > 0)
            return "done" if released else "nothing"

        self._call_both(verb, real, model)
