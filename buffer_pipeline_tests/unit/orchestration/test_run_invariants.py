"""The invariants of one run find what is wrong with its releases, by index."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from buffer_pipeline.audit.reconcile import RUN_INVARIANTS, reconcile, reconcile_run
from buffer_pipeline.backjob import approve_backjob, request_backjob
from buffer_pipeline.database import database_clock, statement_text
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYEE, PAYER, next_generation, place_hold
from buffer_pipeline_tests.support.plans import nodes
from buffer_pipeline_tests.support.runs import corrupt


def of_run(connection: Connection, source: str, since: datetime) -> dict[str, list[dict[str, Any]]]:
    """Return the broken invariants of a source's releases, with their rows."""
    return {found.invariant: found.rows for found in reconcile_run(connection, source=source, since=since)}


def test_other_movements_break_no_invariant_of_a_run(engine: Engine) -> None:
    """Deposits, withdrawals and refunds before and after the run are part of the balances."""
    with engine.begin() as connection:
        place_hold(connection)
        place_hold(connection, job="refunded-in-part", amount="500.00")
        place_hold(connection, payee=PAYER, payer=PAYEE, job="other-way")
        backjob = request_backjob(connection, job="refunded-in-part", by=PAYER, reason="half", now=NOON)
        approve_backjob(
            connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="so be it", amount="200.00", now=NOON
        )
        deposit(connection, owner=PAYEE, amount="70.00", currency="PHP", reference="in-1", now=NOON)
        withdraw(connection, owner=PAYEE, amount="30.00", currency="PHP", reference="out-1", now=NOON)
        since = database_clock(connection)
    release_all_due(engine, due_by=since, source="a run", batch_limit=1)
    with engine.begin() as connection:
        now = database_clock(connection)
        withdraw(connection, owner=PAYEE, amount="10.00", currency="PHP", reference="out-2", now=now)
        deposit(connection, owner=PAYER, amount="5.00", currency="PHP", reference="in-2", now=now)

        found = of_run(connection, "a run", since)
        complete = reconcile(connection)

    assert found == {}
    assert complete == []


@pytest.mark.parametrize(
    ("statement", "invariants"),
    [
        (
            "UPDATE buffer.wallet SET balance_minor = balance_minor - 1 WHERE owner = 'worker-17'",
            {"wallet_equals_its_transactions"},
        ),
        (
            "UPDATE buffer.transaction SET balance_after_minor = 5 WHERE type = 'EARNING'",
            {"wallet_equals_its_transactions"},
        ),
        (
            "UPDATE buffer.transaction SET amount_minor = 99999 WHERE type = 'EARNING'",
            {"books_balance", "wallet_equals_its_transactions", "hold_settled_once"},
        ),
        ("UPDATE buffer.transaction SET amount_minor = 1 WHERE type = 'PENDING_EARNING'", {"books_balance"}),
        (
            "UPDATE buffer.transaction SET currency = 'EUR' WHERE type = 'EARNING'",
            {"books_balance", "hold_settled_once"},
        ),
        ("UPDATE buffer.hold SET amount_minor = amount_minor + 1", {"hold_settled_once"}),
        (
            "UPDATE buffer.hold SET payee_wallet_id = payer_wallet_id, payer_wallet_id = payee_wallet_id",
            {"hold_settled_once"},
        ),
        ("DELETE FROM buffer.hold", {"hold_settled_once"}),
        ("DELETE FROM buffer.wallet WHERE owner = 'worker-17'", {"wallet_equals_its_transactions"}),
        ("DELETE FROM buffer.transaction WHERE type = 'PENDING_EARNING'", {"books_balance"}),
        (
            "UPDATE buffer.transaction SET release_date = now() + interval '1 day' WHERE type = 'EARNING'",
            {"earning_follows_its_batch"},
        ),
        ("UPDATE buffer.batch SET due_by = due_by - interval '1 year'", {"earning_follows_its_batch"}),
        (
            "UPDATE buffer.batch SET recorded_at = recorded_at + interval '1 s'",
            {"earning_follows_its_batch"},
        ),
        (
            "UPDATE buffer.batch SET kind = 'EARLY', reason = 'x', due_by = NULL",
            {"earning_follows_its_batch"},
        ),
    ],
)
def test_corrupted_rows_of_a_run_are_named(
    engine: Engine, superuser_url: str, statement: str, invariants: set[str]
) -> None:
    """A superuser changes them after the run, and the responsible statements report it."""
    with engine.begin() as connection:
        place_hold(connection)
        since = database_clock(connection)
    release_all_due(engine, due_by=since, source="a run")

    corrupt(superuser_url, statement)
    with engine.begin() as connection:
        found = of_run(connection, "a run", since)

    assert set(found) == invariants
    assert all(rows for rows in found.values())


@pytest.mark.parametrize("since_then", [1, 3])
def test_previous_balance_is_found_in_older_generations(
    engine: Engine, superuser_url: str, since_then: int
) -> None:
    """However long ago the wallet's balance moved, the run's first line must follow from it."""
    with engine.begin() as connection:
        deposit(connection, owner=PAYEE, amount="70.00", currency="PHP", reference="in-1", now=NOON)
        next_generation(connection, generations=since_then)
        place_hold(connection)
        place_hold(connection, job="job-2", payee="worker-18")
        next_generation(connection)
        since = database_clock(connection)
    release_all_due(engine, due_by=since, source="a run", batch_limit=1)
    with engine.begin() as connection:
        next_generation(connection)
        deposit(connection, owner=PAYEE, amount="5.00", currency="PHP", reference="in-2", now=since)

    with engine.begin() as connection:
        in_order = of_run(connection, "a run", since)
    corrupt(
        superuser_url,
        "UPDATE buffer.transaction SET balance_after_minor = 6999 WHERE reference = 'in-1'",
    )
    with engine.begin() as connection:
        altered = of_run(connection, "a run", since)

    assert in_order == {}
    assert [(row["owner"], row["before_minor"]) for row in altered["wallet_equals_its_transactions"]] == [
        (PAYEE, 6999)
    ]


def test_lines_of_another_run_are_ignored(engine: Engine, superuser_url: str) -> None:
    """A run is its batches by their source and beginning."""
    with engine.begin() as connection:
        place_hold(connection)
        since = database_clock(connection)
    release_all_due(engine, due_by=since, source="a run")
    corrupt(superuser_url, "UPDATE buffer.hold SET amount_minor = amount_minor + 1")

    with engine.begin() as connection:
        theirs = of_run(connection, "another run", since)
        later = of_run(connection, "a run", datetime.now(UTC) + timedelta(minutes=1))

    assert (theirs, later) == ({}, {})


@pytest.fixture(params=["never analyzed", "analyzed when there was one"])
def large(request: pytest.FixtureRequest, engine: Engine) -> Engine:
    """Books of 3,000 lines of a hundred wallets, with hardly any statistics."""
    if request.param == "analyzed when there was one":
        with engine.begin() as connection:
            place_hold(connection)
            release_all_due(engine, due_by=NOON, source="before")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))
    with engine.begin() as connection:
        add_many_pending_earnings(
            connection,
            [
                Earning(
                    reference=f"earning-many-{number}",
                    job=f"job-many-{number}",
                    payee=f"worker-{number % 100}",
                    payer="client-3",
                    amount="10.00",
                    currency="PHP",
                    held_at=NOON,
                )
                for number in range(1_500)
            ],
            now=NOON,
        )
    release_all_due(engine, due_by=NOON + timedelta(days=8), source="many")
    return engine


@pytest.mark.parametrize("invariant", RUN_INVARIANTS)
def test_proof_of_a_run_reads_by_index(large: Engine, invariant: str) -> None:
    """No table is scanned; each row of a hold or wallet is found by an index."""
    with large.begin() as connection:
        connection.execute(text(statement_text("database/read_by_index")))
        plan = connection.execute(
            text(f"EXPLAIN (FORMAT JSON) {statement_text(f'reconcile_run/{invariant}')}"),
            {"source": "many", "since": datetime.now(UTC) - timedelta(seconds=1)},
        ).scalar_one()[0]["Plan"]

    # The planner's form of max(transaction_id): the last entry of an index.
    newest = [
        child
        for node in nodes(plan)
        for child in node.get("Plans", [])
        if node["Node Type"] == "Limit"
        and child.get("Scan Direction") == "Backward"
        and "Filter" not in child
    ]
    read = [node for node in nodes(plan) if "Relation Name" in node and node not in newest]
    assert {node["Node Type"] for node in read} <= {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}
    assert all(_is_bounded(node) for node in read), read


def _is_bounded(node: Mapping[str, Any]) -> bool:
    """Return True if a scan reads lines since a moment, or those of one id."""
    if node["Node Type"] == "Bitmap Heap Scan":
        indexes = [found for found in nodes(node) if found["Node Type"] == "Bitmap Index Scan"]
        return all(
            found["Index Name"] == "transaction_recorded_brin" or " = " in found["Index Cond"]
            for found in indexes
        )
    return " = " in node.get("Index Cond", "")
