"""The bulk statements' plans: linear in their rows, whatever the planner believes about them."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from importlib import resources
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from buffer_pipeline.drain import drain_matured
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.release import ReleasePosition, Shard, Stretch
from buffer_pipeline.tables import unsettled_hold
from buffer_pipeline_tests.conftest import NOON

HOLDS = 3_000


@pytest.fixture
def misled(engine: Engine) -> Engine:
    """Books whose statistics say that nothing waits, with 3,000 holds that have come in since."""
    with engine.begin() as connection:
        add_many_pending_earnings(connection, earnings(0), now=NOON)
    drain_matured(engine, due_by=NOON + timedelta(days=8), source="test")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    with engine.begin() as connection:
        add_many_pending_earnings(connection, earnings(HOLDS), now=NOON)
    return engine


def earnings(first: int) -> list[Earning]:
    """Return 3,000 earnings of as many workers."""
    return [
        Earning(
            reference=f"earning-{number}",
            job=f"job-{number}",
            payee=f"worker-{number}",
            payer="client-3",
            amount="10.00",
            currency="PHP",
            held_at=NOON,
        )
        for number in range(first, first + HOLDS)
    ]


def loops_over_intermediate_rows(connection: Connection, name: str, **parameters: object) -> list[str]:
    """Return the nested loops that read another part's rows once for each row of theirs."""
    statement = (resources.files("buffer_pipeline") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
    plan = connection.execute(text(f"EXPLAIN (FORMAT JSON) {statement}"), parameters).scalar_one()
    return [
        f"{outer.get('CTE Name') or outer['Node Type']} x {inner['CTE Name']}"
        for node in nodes(plan[0]["Plan"])
        if node["Node Type"] == "Nested Loop"
        for outer, inner in [node["Plans"][:2]]
        if inner["Node Type"] == "CTE Scan" and outer.get("CTE Name") != "opened_batch"
    ]


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return a plan's nodes."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


@pytest.mark.parametrize("by_ids", [False, True])
def test_release_joins_no_intermediate_rows_in_a_loop(misled: Engine, by_ids: bool) -> None:
    """Three thousand holds are released in linear time though statistics expect none."""
    everything = Stretch(
        after=ReleasePosition(), through=ReleasePosition.end(NOON + timedelta(days=8)), shard=Shard()
    )
    with misled.connect() as connection:
        hold_ids = list(connection.scalars(unsettled_hold.select()))

        loops = loops_over_intermediate_rows(
            connection,
            "release_holds",
            hold_ids=hold_ids if by_ids else None,
            kind="EARLY" if by_ids else "DUE",
            source="test",
            reason="well done" if by_ids else None,
            due_by=NOON + timedelta(days=8),
            now=NOON,
            **everything.parameters(),
        )

    assert len(hold_ids) == HOLDS
    # One row, the batch, may be joined in any way.
    assert [loop for loop in loops if not loop.endswith("opened_batch")] == []


def test_adding_joins_no_intermediate_rows_in_a_loop(misled: Engine) -> None:
    """Three thousand earnings are held in linear time though the planner takes them for one."""
    incoming = earnings(2 * HOLDS)
    with misled.connect() as connection:
        loops = loops_over_intermediate_rows(
            connection,
            "add_holds",
            references=[earning.reference for earning in incoming],
            jobs=[earning.job for earning in incoming],
            titles=["" for _ in incoming],
            payees=[earning.payee for earning in incoming],
            payers=[earning.payer for earning in incoming],
            currencies=["PHP" for _ in incoming],
            amounts_minor=[1000 for _ in incoming],
            held_ats=[NOON for _ in incoming],
            release_dates=[NOON for _ in incoming],
            now=NOON,
            notify=True,
        )

    assert loops == []


def test_references_are_looked_up_by_index(engine: Engine) -> None:
    """A session that began on empty books does not read all holds to check a statement's references."""
    with engine.connect() as connection:
        for number in range(8):
            add_many_pending_earnings(connection, earnings(number * HOLDS), now=NOON)
            connection.commit()
        before = sequential_scans(connection)

        # A few, which nothing else would look for in all holds.
        add_many_pending_earnings(connection, earnings(8 * HOLDS)[:10], now=NOON)
        connection.commit()

        assert sequential_scans(connection) == before


def sequential_scans(connection: Connection) -> int:
    """Return how often this database's holds were read from end to end."""
    connection.execute(text("SELECT pg_stat_force_next_flush()"))
    connection.commit()
    count: int = connection.execute(
        text("SELECT seq_scan FROM pg_stat_user_tables WHERE schemaname = 'buffer' AND relname = 'hold'")
    ).scalar_one()
    connection.commit()
    return count
