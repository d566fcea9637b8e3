"""The plans of bulk statements are linear in their rows, even with wrong statistics."""

from datetime import timedelta
from importlib import resources

import pytest
from sqlalchemy import Connection, Engine, text

from buffer_pipeline.intake import add_many_pending_earnings
from buffer_pipeline.release import ReleasePosition, ReleaseRange, Shard
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.tables import unsettled_hold
from buffer_pipeline_tests.support.builders import NOON
from buffer_pipeline_tests.support.plans import HOLDS, earnings, nodes


@pytest.fixture
def misled(engine: Engine) -> Engine:
    """Books whose statistics claim that nothing waits, with 3,000 holds that were added since."""
    with engine.begin() as connection:
        add_many_pending_earnings(connection, earnings(0), now=NOON)
    release_all_due(engine, due_by=NOON + timedelta(days=8), source="test")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    with engine.begin() as connection:
        add_many_pending_earnings(connection, earnings(HOLDS), now=NOON)
    return engine


def loops_over_intermediate_rows(connection: Connection, name: str, **parameters: object) -> list[str]:
    """Return the nested loops that rescan intermediate rows once per row."""
    statement = (resources.files("buffer_pipeline") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
    plan = connection.execute(text(f"EXPLAIN (FORMAT JSON) {statement}"), parameters).scalar_one()
    return [
        f"{outer.get('CTE Name') or outer['Node Type']} x {inner['CTE Name']}"
        for node in nodes(plan[0]["Plan"])
        if node["Node Type"] == "Nested Loop"
        for outer, inner in [node["Plans"][:2]]
        if inner["Node Type"] == "CTE Scan" and outer.get("CTE Name") != "opened_batch"
    ]


@pytest.mark.parametrize("by_ids", [False, True])
def test_release_joins_no_intermediate_rows_in_a_loop(misled: Engine, by_ids: bool) -> None:
    """3,000 holds are released in linear time although the statistics expect none."""
    everything = ReleaseRange(
        after=ReleasePosition(), through=ReleasePosition.end(NOON + timedelta(days=8)), shard=Shard()
    )
    with misled.connect() as connection:
        hold_ids = list(connection.scalars(unsettled_hold.select()))

        loops = loops_over_intermediate_rows(
            connection,
            "release/release_holds",
            hold_ids=hold_ids if by_ids else None,
            kind="EARLY" if by_ids else "DUE",
            source="test",
            reason="well done" if by_ids else None,
            due_by=NOON + timedelta(days=8),
            now=NOON,
            reference=None,
            named_hold_id=None,
            **everything.parameters(),
        )

    assert len(hold_ids) == HOLDS
    # A single row, the batch, may be joined in any way.
    assert [loop for loop in loops if not loop.endswith("opened_batch")] == []


def test_adding_joins_no_intermediate_rows_in_a_loop(misled: Engine) -> None:
    """3,000 earnings are added in linear time although the planner expects one."""
    incoming = earnings(2 * HOLDS)
    with misled.connect() as connection:
        loops = loops_over_intermediate_rows(
            connection,
            "intake/add_holds",
            references=[earning.reference for earning in incoming],
            jobs=[earning.job for earning in incoming],
            titles=["" for _ in incoming],
            payees=[earning.payee for earning in incoming],
            payers=[earning.payer for earning in incoming],
            currencies=["PHP" for _ in incoming],
            amounts_minor=[1000 for _ in incoming],
            earnings_minor=[1000 for _ in incoming],
            rule_ids=[0 for _ in incoming],
            have_shares=False,
            held_ats=[NOON for _ in incoming],
            release_dates=[NOON for _ in incoming],
            metadata=["" for _ in incoming],
            now=NOON,
            notify=True,
        )

    assert loops == []


def test_references_are_looked_up_by_index(engine: Engine) -> None:
    """A session that began on empty books does not scan all holds for a statement's references."""
    with engine.connect() as connection:
        for number in range(8):
            add_many_pending_earnings(connection, earnings(number * HOLDS), now=NOON)
            connection.commit()
        before = sequential_scans(connection)

        # Few references, which nothing else would look up among all holds.
        add_many_pending_earnings(connection, earnings(8 * HOLDS)[:10], now=NOON)
        connection.commit()

        assert sequential_scans(connection) == before


def sequential_scans(connection: Connection) -> int:
    """Return the number of sequential scans of this database's holds."""
    connection.execute(text("SELECT pg_stat_force_next_flush()"))
    connection.commit()
    count: int = connection.execute(
        text("SELECT seq_scan FROM pg_stat_user_tables WHERE schemaname = 'buffer' AND relname = 'hold'")
    ).scalar_one()
    connection.commit()
    return count
