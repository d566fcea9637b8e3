"""The asset `debts`: what is owed at the end of a day, and what happened to debts on it."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from sqlalchemy import Engine

from buffer_pipeline.debts import ClawbackTo
from buffer_pipeline.hours import clock_of_a_writer
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline_tests.support.builders import PAYEE, books
from buffer_pipeline_tests.support.checks import evaluation_of
from buffer_pipeline_tests.support.debts import (
    forgive,
    place_debt,
    place_released,
    put_in,
    recover_now,
    take_back,
    take_out,
)
from buffer_pipeline_tests.support.report_runs import figures
from buffer_pipeline_tests.support.runs import corrupt, outcomes, rows_of

ASSET = dg.AssetKey("debts")
PASSED = dict.fromkeys(
    ("debt_equals_its_transactions", "wallet_names_its_debts", "receivable_equals_debts_to_banks"), True
)

pytestmark = pytest.mark.usefixtures("environment", "this_hour")


def report(instance: dg.DagsterInstance, first: datetime, last: datetime) -> dg.ExecuteInProcessResult:
    """Report the days from first to last."""
    return defs.resolve_job_def("report_days").execute_in_process(
        instance=instance,
        raise_on_error=False,
        tags={
            "dagster/asset_partition_range_start": f"{first:%Y-%m-%d}",
            "dagster/asset_partition_range_end": f"{last:%Y-%m-%d}",
        },
    )


def test_each_day_has_its_debts(engine: Engine, lasting_instance: dg.DagsterInstance) -> None:
    """By currency and creditor, with what was opened, recovered and forgiven on that day. An old day stays
    the same. No money moves.
    """
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first, second, third = (midnight - timedelta(days=days) for days in (3, 2, 1))
    with engine.begin() as connection:
        of_payer = place_debt(connection, now=first)
        hold_id = place_released(connection, job="job-9", payee="worker-18")
        take_out(connection, "1000.00", owner="worker-18")
        take_back(connection, hold_id, "250.00", to=ClawbackTo.BANK, reference="back-2", now=second)
        put_in(connection, "200.00")
        recover_now(connection, now=second)
        forgive(connection, of_payer, now=third)
        before = books(connection)

    result = report(lasting_instance, first, third)

    assert outcomes(result) == PASSED
    found = figures(result, ASSET)
    shown = [found[f"{day:%Y-%m-%d}"] for day in (first, second, third)]
    assert [day["debts"] for day in shown] == [1, 2, 1]
    assert [day["outstanding"] for day in shown] == ["600.00 PHP", "650.00 PHP", "250.00 PHP"]
    assert [day["opened"] for day in shown] == [1, 1, 0]
    assert [day["opened_amount"] for day in shown] == ["600.00 PHP", "250.00 PHP", "none"]
    assert [day["recovered_PHP"] for day in shown] == [0.0, 200.0, 0.0]
    assert [day["forgiven"] for day in shown] == ["none", "none", "400.00 PHP"]
    event = next(
        event.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key == ASSET and event.materialization.partition == f"{second:%Y-%m-%d}"
    )
    table = event.metadata["creditors"]
    assert isinstance(table, dg.TableMetadataValue)
    rows = [dict(record.data) for record in table.records]
    stated = defs.resolve_asset_graph().get(ASSET).metadata["dagster/column_schema"]
    assert isinstance(stated, dg.TableSchema)
    assert list(rows[0]) == [column.name for column in stated.columns]
    assert [(row["creditor"], row["outstanding"], row["recovered"]) for row in rows] == [
        ("client-3", "400.00", "200.00"),
        ("bank", "250.00", "0.00"),
    ]
    with engine.connect() as connection:
        assert books(connection) == before


def test_books_without_debts_report_none(engine: Engine, lasting_instance: dg.DagsterInstance) -> None:
    """A day before the first debt has zeros, and so have books that never had one."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    with engine.begin() as connection:
        place_released(connection)

    found = figures(report(lasting_instance, yesterday, yesterday), ASSET)

    assert found[f"{yesterday:%Y-%m-%d}"]["debts"] == 0
    assert found[f"{yesterday:%Y-%m-%d}"]["outstanding"] == "none"


def test_debt_that_differs_from_its_transactions_is_named(
    engine: Engine, lasting_instance: dg.DagsterInstance, superuser_url: str
) -> None:
    """By the invariant that `reconcile` proves."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    with engine.begin() as connection:
        debt_id = place_debt(connection, now=clock_of_a_writer(connection) - timedelta(days=2))
    corrupt(superuser_url, f"UPDATE buffer.debt SET outstanding_minor = 1 WHERE debt_id = {debt_id}")

    result = report(lasting_instance, yesterday, yesterday)

    assert outcomes(result) == PASSED | {
        "debt_equals_its_transactions": False,
        "wallet_names_its_debts": False,
    }
    row = rows_of(evaluation_of(result, "wallet_names_its_debts"), "rows")[0]
    assert (row["owner"], row["debt"], row["debts_outstanding"]) == (PAYEE, "600.00", "0.01")
