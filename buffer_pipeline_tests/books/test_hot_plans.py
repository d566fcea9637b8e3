"""No hot statement reads a large table from end to end, on the oldest and on the newest supported version.

The verbs run on books where a full scan would be wrong. The server logs the plan of each statement that it
runs
for them, including those of triggers and foreign keys.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
from sqlalchemy import Connection, text

from buffer_pipeline.database import make_engine
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.hot_statements import HOT
from buffer_pipeline_tests.support.large_books import (
    DECISIONS,
    HISTORY,
    LARGE,
    UNDER_WAY,
    UNSETTLED,
    run_scripts,
)

MAY_BE_READ: Final = {
    # A tenth of the unsettled holds and of the wallets: a full scan costs as much as that many lookups.
    "release 5,000": {"unsettled_hold", "wallet"},
    # This many freezes fit into a few ranges of their block-range index.
    "count an hour": {"hold_freeze"},
    "count hours with shares": {"hold_freeze"},
    "first hour": {"hold_freeze"},
}


@pytest.fixture(scope="module", params=["15", "18"])
def version(request: pytest.FixtureRequest) -> Any:
    """A server of each version. The newest has the embedded server's settings for a solid-state disk. The
    oldest has PostgreSQL's defaults, with which random reads cost four times as much.
    """
    return request.getfixturevalue("server" if request.param == "18" else "server_15")


@pytest.fixture(scope="module", params=["current", "after-a-drain"])
def books_url(request: pytest.FixtureRequest, version: Any) -> Iterator[str]:
    """The superuser's URL of large books. Their statistics are current, or claim that nothing waits."""
    with fresh_books(version) as owners_url:
        url = owners_url.replace("postgresql+psycopg://buffer@", "postgresql://postgres@")
        # Autovacuum must not change the statistics.
        run_scripts(url, *(f"ALTER TABLE buffer.{table} SET (autovacuum_enabled = off)" for table in LARGE))
        if request.param == "current":
            run_scripts(url, HISTORY, UNSETTLED, UNDER_WAY, DECISIONS, "VACUUM ANALYZE")
        else:
            run_scripts(url, HISTORY, UNSETTLED, "DELETE FROM buffer.unsettled_hold", "ANALYZE")
            run_scripts(url, UNSETTLED, UNDER_WAY, DECISIONS)
        yield url


@pytest.fixture
def plans(books_url: str) -> Iterator[tuple[Connection, list[Any]]]:
    """A connection to the books that is rolled back at the end, and the plans of all statements on it."""
    found: list[Any] = []
    engine = make_engine(books_url)
    with engine.connect() as connection:
        for statement in (
            "LOAD 'auto_explain'",
            "SET auto_explain.log_min_duration = 0",
            "SET auto_explain.log_nested_statements = on",
            "SET auto_explain.log_format = json",
            "SET auto_explain.log_level = notice",
            # From here on, with the privileges of a platform.
            "SET SESSION AUTHORIZATION buffer",
        ):
            connection.execute(text(statement))
        connection.commit()
        driver: Any = connection.connection.driver_connection
        driver.add_notice_handler(
            lambda diagnostic: found.append(json.loads(diagnostic.message_primary.split("plan:\n", 1)[1]))
        )
        yield connection, found
        connection.rollback()
    engine.dispose()


def read_whole(plan: Mapping[str, Any], *, to_the_end: bool = True) -> Iterator[str]:
    """Return the tables that a plan reads from end to end, by a sequential scan or a full index scan. A LIMIT
    above the scan ends it early, so it does not count.
    """
    to_the_end = to_the_end and plan["Node Type"] != "Limit"
    if plan["Node Type"] == "Seq Scan" or (
        (
            to_the_end
            and "Index Cond" not in plan
            and plan.get("Index Name", "").endswith(("_pkey", "_key", "hold_job_idx", "_wallet_idx"))
            and plan["Node Type"] in {"Index Scan", "Index Only Scan"}
            # If the statistics claim that nothing waits, the view of holds reads all unsettled holds once.
            and plan["Relation Name"] != "unsettled_hold"
        )
        # A condition on only the second column of an index reads the whole index: the generation of a
        # wallet's lines.
        or (
            plan.get("Index Name") == "transaction_generation_to_wallet_idx"
            and ">> 17" not in plan.get("Index Cond", "")
        )
    ):
        yield str(plan["Relation Name"])
    for child in plan.get("Plans", []):
        yield from read_whole(child, to_the_end=to_the_end)


@pytest.mark.parametrize("name", HOT)
def test_no_large_table_is_read_from_end_to_end(plans: tuple[Connection, list[Any]], name: str) -> None:
    """An index finds every row that a hot statement needs, with current and with misleading statistics."""
    connection, found = plans
    large = LARGE - MAY_BE_READ.get(name, set())

    HOT[name](connection)
    # The next statement ends the previous one, and then its plan is logged.
    connection.execute(text("SELECT"))

    assert found
    assert [
        (table, plan["Query Text"]) for plan in found for table in read_whole(plan["Plan"]) if table in large
    ] == []
