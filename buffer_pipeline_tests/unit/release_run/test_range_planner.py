"""The planner divides everything due into ranges, at boundaries that it has counted."""

import random
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, select, text

from buffer_pipeline.database import fetch, statement_text
from buffer_pipeline.hold import HoldState
from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline.release import ReleasePosition, ReleaseRange, Shard, boundaries, came_in_due, newest_hold
from buffer_pipeline.release_run import ranges as ranges_module
from buffer_pipeline.release_run.batch_size import SMALLEST_BATCH
from buffer_pipeline.release_run.ranges import RangePlanner
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.tables import wallet
from buffer_pipeline_tests.support.builders import DAY_7, PAYEE, place_hold
from buffer_pipeline_tests.support.due_ranges import LATE, matured, order_of, place_over_hours


def test_boundaries_are_at_every_nth_hold(connection: Connection) -> None:
    """After a position, in the order of release, of a shard; some of them, or of full hours only."""
    for minutes in (0, 10, 30, 50, 90, 95, 100, 150):
        for payee in (PAYEE, "worker-18"):
            place_hold(connection, payee=payee, release_date=LATE - timedelta(minutes=minutes))
    place_hold(connection, release_date=LATE + timedelta(minutes=1))
    due = matured(connection)
    first = min(position.wallet_id for position in due)
    arguments: dict[str, Any] = {
        "due_by": LATE,
        "after": ReleasePosition(),
        "every": 3,
        "boundaries_max": 100,
        "shard": Shard(),
        "whole_hours": False,
    }

    def found(**changes: Any) -> list[ReleasePosition]:
        return boundaries(connection, **{**arguments, **changes})

    assert found() == due[2::3]
    assert found(every=1) == due
    assert found(boundaries_max=2) == due[2:6:3]
    assert found(after=due[4]) == due[7::3]
    assert found(every=1, after=due[3]) == due[4:]
    for shard in (Shard(through=first), Shard(after=first)):
        inside = [position for position in due if shard.after < position.wallet_id <= shard.through]
        assert found(every=1, shard=shard) == inside
        assert len(inside) == 8
    ended = [position for position in due if position.hour < hour_of(LATE)]
    assert found(every=1, whole_hours=True) == ended
    assert 0 < len(ended) < len(due)
    assert connection.scalar(select(func.current_setting("enable_seqscan"))) == "off"


@pytest.fixture(params=[1, 2, 3])
def laid_out(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """Books of 700 holds over some hours and payees, by a seed."""
    place_over_hours(engine, 700, seed=request.param)
    with engine.connect() as connection:
        yield connection


@pytest.mark.parametrize("every", [1, 7, SMALLEST_BATCH, 5_000])
@pytest.mark.parametrize("boundaries_ahead", [2, 10_000])
def test_ranges_cover_everything_due(
    laid_out: Connection, monkeypatch: pytest.MonkeyPatch, every: int, boundaries_ahead: int
) -> None:
    """They follow each other to the end. Each has the requested number of holds up to a boundary,
    never more.
    """
    monkeypatch.setattr(ranges_module, "BOUNDARIES_AHEAD", boundaries_ahead)
    due = matured(laid_out)
    chance = random.Random(every)
    planner = RangePlanner(due_by=LATE, shard=Shard(), every=every)
    at, counted = ReleasePosition(), 0

    while (ahead := planner.next(laid_out, holds=(wanted := chance.randrange(1, 300)))) is not None:
        hold_range, held = ahead
        inside = [
            one for one in due if order_of(hold_range.after) < order_of(one) <= order_of(hold_range.through)
        ]
        assert hold_range.after == at
        assert len(inside) <= held <= max(wanted, every)
        if hold_range.through != ReleasePosition.end(LATE):
            assert len(inside) == held == max(1, wanted // every) * every
        at, counted = hold_range.through, counted + len(inside)

    assert counted == len(due) > 0
    assert at == ReleasePosition.end(LATE)


def test_last_range_counts_holds_added_later(engine: Engine) -> None:
    """It is no longer than requested, however many holds were added after the counted part."""
    with engine.connect() as connection:
        for _ in range(25):
            place_hold(connection, release_date=LATE - 2 * HOUR)
        planner = RangePlanner(due_by=LATE, shard=Shard(), every=10)
        first = planner.next(connection, holds=10)
        for _ in range(200):
            place_hold(connection, release_date=LATE - HOUR)
        due = matured(connection)
        rest = []
        while (ahead := planner.next(connection, holds=50)) is not None:
            hold_range, _ = ahead
            inside = [
                one
                for one in due
                if order_of(hold_range.after) < order_of(one) <= order_of(hold_range.through)
            ]
            assert inside  # A planner that does not advance would never end.
            rest.append(len(inside))

    assert first is not None
    assert rest == [50, 50, 50, 50, 15]


def test_planner_of_nothing_has_one_range(connection: Connection) -> None:
    """Without due holds, there is one empty range."""
    planner = RangePlanner(due_by=DAY_7, shard=Shard(), every=10)

    first, second = (planner.next(connection, holds=100) for _ in range(2))

    assert first is not None
    assert first[0] == ReleaseRange(
        after=ReleasePosition(), through=ReleasePosition.end(DAY_7), shard=Shard()
    )
    assert second is None


def test_newly_added_due_holds_are_found(connection: Connection) -> None:
    """Existing, frozen, not yet due and other shards' holds do not count."""
    empty = newest_hold(connection)
    place_hold(connection)
    newest = newest_hold(connection)

    def came_in(**changes: Any) -> bool:
        arguments = {"newest": newest, "due_by": DAY_7, "shard": Shard()}
        return came_in_due(connection, **{**arguments, **changes})

    nothing_new = came_in()
    place_hold(connection, state=HoldState.FROZEN)
    place_hold(connection, release_date=DAY_7 + timedelta(microseconds=1))
    not_due = came_in()
    due = place_hold(connection, payee="worker-18")
    payee = connection.scalar(select(wallet.c.wallet_id).where(wallet.c.owner == "worker-18"))
    assert isinstance(payee, int)

    assert (empty, newest_hold(connection)) == (0, due)
    assert (nothing_new, not_due) == (False, False)
    assert came_in()
    assert came_in(shard=Shard(after=payee - 1, through=payee))
    assert not came_in(shard=Shard(after=payee))
    assert not came_in(shard=Shard(through=payee - 1))
    assert not came_in(newest=due)
    assert connection.scalar(text("SHOW enable_seqscan")) == "off"


def test_last_look_reads_only_new_holds(engine: Engine) -> None:
    """It reads the index of the primary key only: others still have an entry for each released hold."""
    place_over_hours(engine, 2_000, seed=5)
    with engine.connect() as connection:
        newest = newest_hold(connection)
    release_all_due(engine, due_by=LATE, source="a test", clock=lambda _: LATE)

    with engine.begin() as connection:
        fetch(connection, "database/read_by_index")
        arguments = {"newest": newest, "due_by": LATE, "after_shard": 0, "through_shard": Shard().through}
        plan = connection.scalars(
            text(f"EXPLAIN (ANALYZE, BUFFERS) {statement_text('release/came_in_due')}"), arguments
        ).all()

    assert re.search("Index Scan (using|on) unsettled_hold_pkey", " ".join(plan))
    assert not any(re.search("unsettled_hold_[a-z]+_idx", line) for line in plan)
