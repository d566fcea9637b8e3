"""What a release run's blocking checks prove: what the run touched, on top of a proof that stands."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import dagster as dg
import pytest
from sqlalchemy import Connection, Engine, text

from buffer_pipeline.backjob import approve_backjob, request_backjob
from buffer_pipeline.database import database_clock, statement_text
from buffer_pipeline.drain import drain_matured
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.orchestration.checks import ALL_BOOKS, BLOCKING, PROVED, THIS_RUN
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.reconcile import RUN_INVARIANTS, reconcile, reconcile_run
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.builders import ADMIN, PAYEE, PAYER, next_generation, place_hold, wallet_of
from buffer_pipeline_tests.conftest import NOON
from buffer_pipeline_tests.runs import corrupt, delivered, outcomes, release, rows_of
from buffer_pipeline_tests.test_checks import RECONCILE_JOB, SECOND_EARNING, evaluation_of
from buffer_pipeline_tests.test_plans import nodes

PASSED: Final = dict.fromkeys(BLOCKING, True)

ALREADY_EARNED: Final = (
    "DROP INDEX buffer.transaction_hold_earned_key",
    "INSERT INTO buffer.transaction (type, from_account, from_wallet_id, to_account, to_wallet_id,"
    " currency, amount_minor, balance_after_minor, hold_id, batch_id, recorded_at, release_date)"
    " SELECT 'EARNING', 'PENDING_EARNINGS', to_wallet_id, 'BALANCE', to_wallet_id, currency, amount_minor,"
    " 0, hold_id, 1, recorded_at, recorded_at"
    " FROM buffer.transaction ORDER BY transaction_id DESC LIMIT 1",
)
"""The payment that waits was paid once before, and still waits."""

TOO_EARLY: Final = (
    "CREATE FUNCTION buffer.falsify() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN NEW.release_date := now() + interval ''1 day''; RETURN NEW; END'",
    "CREATE TRIGGER falsify BEFORE INSERT ON buffer.transaction FOR EACH ROW"
    " WHEN (NEW.type = 'EARNING' AND NEW.hold_id % 2 = 0) EXECUTE FUNCTION buffer.falsify()",
)
"""Of each second payment the books will say that it was not due yet."""

CORRUPTIONS: Final[dict[str, tuple[str, ...]]] = {
    "books_balance": (
        "UPDATE buffer.transaction SET amount_minor = amount_minor - 1"
        " WHERE transaction_id = (SELECT max(transaction_id) FROM buffer.transaction)",
    ),
    "wallet_equals_its_transactions": ("UPDATE buffer.wallet SET balance_minor = balance_minor + 7",),
    "hold_settled_once": ALREADY_EARNED,
    "earning_follows_its_batch": TOO_EARLY,
}
"""Blocking check -> what a superuser does to the books between two releases."""


def proved(result: dg.ExecuteInProcessResult) -> set[str]:
    """Return what the run's checks say that they proved."""
    return {str(found.metadata["proved"].value) for found in result.get_asset_check_evaluations()}


@pytest.fixture
def proved_books(engine: Engine, environment: None, instance: dg.DagsterInstance) -> Engine:
    """Books with a release behind them, whose checks passed."""
    del environment
    with engine.begin() as connection:
        place_hold(connection)
    assert outcomes(release(instance)) == PASSED
    return engine


# ---- in a release run


def test_every_blocking_check_has_a_corruption() -> None:
    """No blocking check is left that nothing has ever failed in a release."""
    assert set(CORRUPTIONS) == set(BLOCKING)


@pytest.mark.usefixtures("environment")
def test_a_release_proves_its_own_part_on_top_of_a_proof(
    engine: Engine, instance: dg.DagsterInstance
) -> None:
    """The first release proves all of the books, those behind it what they released themselves; a dry
    run proves nothing and changes nothing about that; the daily job proves all.
    """
    with engine.begin() as connection:
        place_hold(connection)
    first = release(instance)
    with engine.begin() as connection:
        place_hold(connection)
    release(instance, dry_run=True)

    second = release(instance)
    nothing_due = release(instance)
    daily = defs.resolve_job_def(RECONCILE_JOB).execute_in_process(instance=instance)

    assert [outcomes(run) for run in (first, second, nothing_due)] == [PASSED] * 3
    assert [proved(run) for run in (first, second, nothing_due)] == [{ALL_BOOKS}, {THIS_RUN}, {THIS_RUN}]
    assert evaluation_of(daily, "books_balance").metadata["proved"].value == ALL_BOOKS


@pytest.mark.parametrize("check", BLOCKING)
def test_what_a_run_touched_is_proved_before_anybody_is_told(
    check: str, proved_books: Engine, superuser_url: str, instance: dg.DagsterInstance
) -> None:
    """What a superuser does to a payment or its wallet before the release fails the release's check; the
    run is not retried, and nobody is told by it or by the next one.
    """
    with proved_books.begin() as connection:
        place_hold(connection)
        place_hold(connection, job="job-9")
    corrupt(superuser_url, *CORRUPTIONS[check])

    broken = release(instance, raise_on_error=False)
    following = release(instance, raise_on_error=False)

    assert proved(broken) == {THIS_RUN}
    assert outcomes(broken)[check] is False
    found = evaluation_of(broken, check)
    assert found.metadata["offending_rows"].value == len(rows_of(found, "rows")) == 1
    run = instance.get_run_by_id(broken.run_id)
    assert run is not None
    assert run.tags["dagster/retry_on_asset_or_op_failure"] == "false"
    # What the next one released itself, nothing, is in order.
    assert evaluation_of(following, check).metadata["proved"].value == ALL_BOOKS
    assert not following.success
    with proved_books.connect() as connection:
        assert wallet_of(connection, PAYEE).balance_minor >= 3 * 100_000
        assert delivered(connection) == (6, 2)


def test_what_was_paid_twice_before_is_named_by_the_daily_job(
    proved_books: Engine, superuser_url: str, instance: dg.DagsterInstance
) -> None:
    """A second EARNING of an older hold is no part of a release; the daily job names it, and from then on
    releases prove all of the books and tell nobody.
    """
    corrupt(superuser_url, *SECOND_EARNING)
    with proved_books.begin() as connection:
        place_hold(connection)

    before = release(instance, raise_on_error=False)
    daily = defs.resolve_job_def(RECONCILE_JOB).execute_in_process(instance=instance, raise_on_error=False)
    with proved_books.begin() as connection:
        place_hold(connection)
    after = release(instance, raise_on_error=False)

    assert outcomes(before)["hold_settled_once"] is True
    assert outcomes(daily)["hold_settled_once"] is False
    assert outcomes(after)["hold_settled_once"] is False
    assert rows_of(evaluation_of(after, "hold_settled_once"), "rows")[0]["earnings"] == 2
    with proved_books.connect() as connection:
        assert delivered(connection) == (6, 4)


def test_a_run_that_ended_before_its_checks_is_made_up_for(
    proved_books: Engine, instance: dg.DagsterInstance
) -> None:
    """What a run that broke off has released is nobody's own part: the next one proves all of the books."""
    with proved_books.begin() as connection:
        place_hold(connection)
    refused = release(instance, raise_on_error=False, as_of="yesterday")

    following = release(instance)
    one_more = release(instance)

    assert not refused.success
    assert [proved(run) for run in (refused, following, one_more)] == [set(), {ALL_BOOKS}, {THIS_RUN}]


@pytest.mark.usefixtures("proved_books")
def test_a_failure_is_not_forgotten_behind_a_part_that_passed(
    superuser_url: str, instance: dg.DagsterInstance
) -> None:
    """A proof of all of the books takes long, and fails behind a release that began later and passed."""
    corrupt(superuser_url, *SECOND_EARNING)
    defs.resolve_job_def(RECONCILE_JOB).execute_in_process(instance=instance, raise_on_error=False)
    for check in BLOCKING:
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey("released_transactions"),
                check_name=check,
                passed=True,
                metadata={PROVED: THIS_RUN},
            )
        )

    result = release(instance, raise_on_error=False)

    found = evaluation_of(result, "hold_settled_once")
    assert (found.passed, found.metadata["proved"].value) == (False, ALL_BOOKS)


# ---- the statements


def of_run(connection: Connection, source: str, since: datetime) -> dict[str, list[dict[str, Any]]]:
    """Return the invariants that are broken for what a source has released, with their rows."""
    return {found.invariant: found.rows for found in reconcile_run(connection, source=source, since=since)}


def test_money_that_moves_otherwise_is_in_order(engine: Engine) -> None:
    """Deposits, withdrawals and refunds, before the run and behind it, are part of what balances say."""
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
    drain_matured(engine, due_by=since, source="a run", batch_limit=1)
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
def test_whatever_a_run_has_left_wrong_is_named(
    engine: Engine, superuser_url: str, statement: str, invariants: set[str]
) -> None:
    """Behind the run a superuser changes what it touched: the statements that are about it say so."""
    with engine.begin() as connection:
        place_hold(connection)
        since = database_clock(connection)
    drain_matured(engine, due_by=since, source="a run")

    corrupt(superuser_url, statement)
    with engine.begin() as connection:
        found = of_run(connection, "a run", since)

    assert set(found) == invariants
    assert all(rows for rows in found.values())


@pytest.mark.parametrize("since_then", [1, 3])
def test_what_stood_before_is_found_in_older_generations(
    engine: Engine, superuser_url: str, since_then: int
) -> None:
    """However long ago a wallet's balance last moved, a run's first line to it has to follow from that."""
    with engine.begin() as connection:
        deposit(connection, owner=PAYEE, amount="70.00", currency="PHP", reference="in-1", now=NOON)
        next_generation(connection, generations=since_then)
        place_hold(connection)
        place_hold(connection, job="job-2", payee="worker-18")
        next_generation(connection)
        since = database_clock(connection)
    drain_matured(engine, due_by=since, source="a run", batch_limit=1)
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


def test_another_runs_lines_are_not_looked_at(engine: Engine, superuser_url: str) -> None:
    """A run is its batches by their source, and those since it began."""
    with engine.begin() as connection:
        place_hold(connection)
        since = database_clock(connection)
    drain_matured(engine, due_by=since, source="a run")
    corrupt(superuser_url, "UPDATE buffer.hold SET amount_minor = amount_minor + 1")

    with engine.begin() as connection:
        theirs = of_run(connection, "another run", since)
        later = of_run(connection, "a run", datetime.now(UTC) + timedelta(minutes=1))

    assert (theirs, later) == ({}, {})


@pytest.fixture(params=["never analyzed", "analyzed when there was one"])
def large(request: pytest.FixtureRequest, engine: Engine) -> Engine:
    """Books of 3,000 lines of a hundred wallets, about which the statistics know next to nothing."""
    if request.param == "analyzed when there was one":
        with engine.begin() as connection:
            place_hold(connection)
            drain_matured(engine, due_by=NOON, source="before")
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
    drain_matured(engine, due_by=NOON + timedelta(days=8), source="many")
    return engine


@pytest.mark.parametrize("invariant", RUN_INVARIANTS)
def test_what_a_run_touched_is_read_by_index(large: Engine, invariant: str) -> None:
    """No table is read whole, and what one of a run's holds or wallets needs is read by its own index."""
    with large.begin() as connection:
        connection.execute(text(statement_text("read_by_index")))
        plan = connection.execute(
            text(f"EXPLAIN (FORMAT JSON) {statement_text(f'reconcile_run/{invariant}')}"),
            {"source": "many", "since": datetime.now(UTC) - timedelta(seconds=1)},
        ).scalar_one()[0]["Plan"]

    # What the planner makes of max(transaction_id): the first entry from an index's end.
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
    """Say whether a scan is of lines since a moment, or of those that belong to one id."""
    if node["Node Type"] == "Bitmap Heap Scan":
        indexes = [found for found in nodes(node) if found["Node Type"] == "Bitmap Index Scan"]
        return all(
            found["Index Name"] == "transaction_recorded_brin" or " = " in found["Index Cond"]
            for found in indexes
        )
    return " = " in node.get("Index Cond", "")
