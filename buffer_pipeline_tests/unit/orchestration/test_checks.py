"""The asset checks: each fails on its violation and names the rows."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine

from buffer_pipeline.audit.reconcile import INVARIANTS
from buffer_pipeline.audit.seals import seal
from buffer_pipeline.hold import HoldState
from buffer_pipeline.hours import HOUR, hour_of, overdue_by
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.reports.hourly_counts import count_hours
from buffer_pipeline_tests.support.builders import (
    PAYEE,
    place_hold,
    wallet_of,
)
from buffer_pipeline_tests.support.checks import RECONCILE_JOB, evaluation_of
from buffer_pipeline_tests.support.corruptions import CORRUPTIONS
from buffer_pipeline_tests.support.runs import corrupt, delivered, outcomes, release, rows_of


def check_alone(name: str, asset: str, instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    """Evaluate one check as its button in the UI does."""
    key = dg.AssetCheckKey(dg.AssetKey(asset), name)
    job = dg.define_asset_job("alone", selection=dg.AssetSelection.checks(key))
    merged = dg.Definitions.merge(defs, dg.Definitions(jobs=[job]))
    result = merged.resolve_job_def("alone").execute_in_process(instance=instance, raise_on_error=False)
    return evaluation_of(result, name)


# ---- between the credits and the notifications


def test_broken_books_stop_the_notifications(
    waiting: int, superuser_url: str, engine: Engine, instance: dg.DagsterInstance
) -> None:
    """Money without a source fails its checks. Nobody is notified, and nothing is retried."""
    del waiting
    corrupt(
        superuser_url, f"UPDATE buffer.wallet SET balance_minor = balance_minor + 7 WHERE owner = '{PAYEE}'"
    )

    result = release(instance, raise_on_error=False)

    assert not result.success
    assert outcomes(result) == {
        "books_balance": False,
        "wallet_equals_its_transactions": False,
        "hold_settled_once": True,
        "earning_follows_its_batch": True,
    }
    row = rows_of(evaluation_of(result, "books_balance"), "rows")[0]
    assert row["currency"] == "PHP"
    assert Decimal(row["wallets"]) - Decimal(row["transactions"]) == Decimal("0.07")
    row = rows_of(evaluation_of(result, "wallet_equals_its_transactions"), "rows")[0]
    assert (row["owner"], row["balance"], row["transactions_balance"]) == (PAYEE, "1000.07", "1000.00")
    with engine.connect() as connection:
        assert wallet_of(connection, PAYEE).balance_minor == 100_007
        assert delivered(connection) == (2, 0)
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags["dagster/retry_on_asset_or_op_failure"] == "false"


# ---- all invariants


def test_every_invariant_has_a_corruption() -> None:
    """Every check has failed in a test."""
    assert set(CORRUPTIONS) == set(INVARIANTS)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("invariant", INVARIANTS)
def test_a_broken_invariant_fails_its_check(
    invariant: str, superuser_url: str, engine: Engine, instance: dg.DagsterInstance
) -> None:
    """The daily job finds and names what a superuser changed past every constraint."""
    job = defs.resolve_job_def(RECONCILE_JOB)
    with engine.begin() as connection:
        statements = CORRUPTIONS[invariant](connection)
    seal(engine)
    before = job.execute_in_process(instance=instance)

    corrupt(superuser_url, *statements)
    after = job.execute_in_process(instance=instance, raise_on_error=False)

    assert outcomes(before) == dict.fromkeys(
        [*INVARIANTS, "counts_equal_transactions", "history_as_sealed"], True
    )
    assert outcomes(after)[invariant] is False
    found = evaluation_of(after, invariant)
    rows = rows_of(found, "rows")
    assert found.metadata["offending_rows"].value == len(rows) > 0


# ---- overdue, stuck


@pytest.mark.parametrize(
    ("now", "due_by"),
    [
        ("11:00:03", "10:00:00"),
        ("11:09:59", "10:00:00"),
        ("11:10:00", "10:10:00"),
        ("11:59:59", "10:59:59"),
        ("12:00:00", "11:00:00"),
        ("12:09:00", "11:00:00"),
    ],
)
def test_payment_of_the_running_hour_is_not_overdue(now: str, due_by: str) -> None:
    """What comes due just after the hour waits for the next run, which has ten minutes."""
    moment = datetime.fromisoformat(f"2026-03-02T{now}+00:00")

    assert overdue_by(moment) == datetime.fromisoformat(f"2026-03-02T{due_by}+00:00")


def test_an_overdue_payment_is_named(waiting: int, engine: Engine, instance: dg.DagsterInstance) -> None:
    """A payment due for over an hour fails the check; a newer one does not."""
    late = check_alone("nothing_overdue", "buffered_transactions", instance)
    release(instance)
    with engine.begin() as connection:
        place_hold(connection, release_date=datetime.now(UTC) - timedelta(minutes=59))

    on_time = check_alone("nothing_overdue", "buffered_transactions", instance)

    assert (late.passed, on_time.passed) == (False, True)
    assert rows_of(late, "holds")[0]["hold_id"] == waiting


@pytest.mark.usefixtures("environment")
def test_a_stuck_freeze_is_named(engine: Engine, instance: dg.DagsterInstance) -> None:
    """A freeze older than the limit fails the check; one of an hour does not."""
    with engine.begin() as connection:
        place_hold(connection, state=HoldState.FROZEN, held_at=datetime.now(UTC) - timedelta(hours=1))
    fresh = check_alone("no_payment_stuck", "frozen_payments", instance)
    with engine.begin() as connection:
        stuck = place_hold(connection, state=HoldState.FROZEN)

    old = check_alone("no_payment_stuck", "frozen_payments", instance)

    assert (fresh.passed, old.passed) == (True, False)
    assert [row["hold_id"] for row in rows_of(old, "holds")] == [stuck]


# ---- counts


def counted_hour(engine: Engine) -> datetime:
    """Release a payment, place another in a past hour, and count that hour."""
    hour = hour_of(datetime.now(UTC)) - 3 * HOUR
    with engine.begin() as connection:
        place_hold(connection, state=HoldState.RELEASED, held_at=hour + timedelta(minutes=5))
        place_hold(connection, state=HoldState.FROZEN, held_at=hour + timedelta(minutes=6))
    count_hours(engine, start=hour, end=hour + HOUR, counted_by="test")
    return hour


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("statement", "figures"),
    [
        (
            "UPDATE buffer.hourly_release_count SET released_minor = released_minor + 1",
            {("released_minor", "100001", "100000")},
        ),
        (
            "UPDATE buffer.transaction SET amount_minor = 90000 WHERE type = 'EARNING'",
            {("released_minor", "100000", "90000")},
        ),
        (
            "UPDATE buffer.hold_freeze SET opened_at = opened_at - interval '1 day'",
            {("freezes_opened", "1", "0")},
        ),
        (
            "DELETE FROM buffer.hourly_release_count",
            {
                ("added_minor", "", "200000"),
                ("freezes_closed", "", "0"),
                ("freezes_opened", "", "1"),
                ("holds_added", "", "2"),
                ("holds_released", "", "1"),
                ("holds_released_early", "", "1"),
                ("parts_released", "", "0"),
                ("payees", "", "1"),
                ("refunded_minor", "", "0"),
                ("refunds", "", "0"),
                ("released_fee_minor", "", "0"),
                ("released_minor", "", "100000"),
                ("released_reserve_minor", "", "0"),
                ("released_tax_minor", "", "0"),
            },
        ),
    ],
    ids=["the-count", "the-transaction", "the-freeze", "no-count"],
)
def test_a_count_that_differs_is_named(
    engine: Engine,
    superuser_url: str,
    instance: dg.DagsterInstance,
    statement: str,
    figures: set[tuple[str, str, str]],
) -> None:
    """Whichever side was changed, the check names the hour, the currency and each figure."""
    hour = counted_hour(engine)
    before = check_alone("counts_equal_transactions", "hourly_release_counts", instance)

    corrupt(superuser_url, statement)
    after = check_alone("counts_equal_transactions", "hourly_release_counts", instance)

    assert (before.passed, after.passed) == (True, False)
    assert after.severity is dg.AssetCheckSeverity.WARN
    rows: list[Any] = rows_of(after, "rows")
    assert {(row["figure"], row["counted"], row["transactions_say"]) for row in rows} == figures
    assert {(row["hour"], row["currency"]) for row in rows} == {(hour.isoformat(), "PHP")}


@pytest.mark.usefixtures("environment")
def test_late_write_into_a_counted_hour_fails_the_check(engine: Engine, instance: dg.DagsterInstance) -> None:
    """By a caller with a slow clock. Counting again fixes it."""
    hour = counted_hour(engine)
    with engine.begin() as connection:
        place_hold(connection, held_at=hour + timedelta(minutes=30))

    differs = check_alone("counts_equal_transactions", "hourly_release_counts", instance)
    count_hours(engine, start=hour, end=hour + HOUR, counted_by="test")
    healed = check_alone("counts_equal_transactions", "hourly_release_counts", instance)

    assert {row["figure"] for row in rows_of(differs, "rows")} == {"holds_added", "added_minor"}
    assert healed.passed
