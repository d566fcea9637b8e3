"""The asset `payout_batches`: today's partition pays out once, every other one only reports."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from typing import Any

import dagster as dg
import pytest
from dagster._core.instance import InstanceRef
from sqlalchemy import Connection, Engine, func, select, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import make_engine
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.orchestration.resources import RESOURCES
from buffer_pipeline.payouts import set_payout_schedule
from buffer_pipeline.tables import payout, payout_batch
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYEE
from buffer_pipeline_tests.support.payouts import give, make_batch, payable, request
from buffer_pipeline_tests.support.runs import corrupt, failure_of, outcomes, reported

JOB = "make_payout_batches"
ASSET = "payout_batches"
PASSED = dict.fromkeys(
    (
        "transit_equals_open_payouts",
        "payout_equals_its_transactions",
        "payout_batch_equals_its_payouts",
        "no_payout_stuck",
    ),
    True,
)

pytestmark = pytest.mark.usefixtures("environment", "this_hour")


def today() -> str:
    """Return the partition of today."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


def materialize(
    instance: dg.DagsterInstance, day: str, *, raise_on_error: bool = True, tags: dict[str, str] | None = None
) -> dg.ExecuteInProcessResult:
    """Run the job for a day."""
    return defs.resolve_job_def(JOB).execute_in_process(
        instance=instance, partition_key=day, raise_on_error=raise_on_error, tags=tags
    )


def materialize_in_a_process(instance: InstanceRef, day: str) -> bool:
    """Run the job as a process that the code server starts for a run."""
    with dg.DagsterInstance.from_ref(instance) as own:
        return materialize(own, day).success


@pytest.fixture
def due(engine: Engine) -> None:
    """Three owners who are paid daily, and one who has asked for a payout."""
    with engine.begin() as connection:
        for number in range(3):
            owner = f"worker-{number}"
            payable(connection, owner)
            set_payout_schedule(connection, owner=owner, schedule="DAILY", by=ADMIN, reason="asked", now=NOON)
        give(connection, "worker-0", currency="EUR", amount="5.00")
        payable(connection, "asks")
        request(connection, "asks")


def made(connection: Connection) -> list[tuple[Any, ...]]:
    """Return currency, payouts, amount, state and maker of each batch."""
    batch = payout_batch.c
    rows = connection.execute(
        select(batch.currency, batch.payouts, batch.amount_minor, batch.state, batch.made_by).order_by(
            batch.currency
        )
    )
    return [tuple(row) for row in rows]


ALL = [("EUR", 1, 500, "MADE", "schedule"), ("PHP", 4, 310_000, "MADE", "schedule")]


@pytest.mark.usefixtures("due")
def test_today_is_requested_and_put_into_batches_once(
    engine: Engine, lasting_instance: dg.DagsterInstance
) -> None:
    """A second run makes nothing more, and reports the same batches."""
    first = materialize(lasting_instance, today())
    again = materialize(lasting_instance, today())

    assert outcomes(first) == outcomes(again) == PASSED
    shown = reported(first, ASSET)
    assert (shown["made"], shown["batches"], shown["payouts"]) == ("yes", 2, 5)
    assert (shown["amounts"], shown["amount_PHP"]) == ("5.00 EUR, 3100.00 PHP", 3100.0)
    assert (shown["requested"], shown["requested_amount"]) == (4, "5.00 EUR, 3000.00 PHP")
    assert [(row["currency"], row["amount"], row["made_by"]) for row in shown["of_the_day"]] == [
        ("EUR", "5.00", "schedule"),
        ("PHP", "3100.00", "schedule"),
    ]
    repeated = reported(again, ASSET)
    assert (repeated["made"], repeated["requested"], repeated["batches"]) == ("yes", 0, 2)
    with engine.connect() as connection:
        assert made(connection) == ALL
        assert reconcile(connection) == []


@pytest.mark.usefixtures("due")
def test_two_runs_at_once_make_nothing_twice(engine: Engine, lasting_instance: dg.DagsterInstance) -> None:
    """Each is a process of its own, as under the code server."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        runs = [
            processes.submit(materialize_in_a_process, lasting_instance.get_ref(), today()) for _ in range(2)
        ]
        assert [run.result() for run in runs] == [True, True]

    with engine.connect() as connection:
        assert made(connection) == ALL
        assert connection.scalar(select(func.count()).select_from(payout)) == 5
        assert reconcile(connection) == []


@pytest.mark.usefixtures("due")
def test_past_day_and_backfill_move_nothing(engine: Engine, lasting_instance: dg.DagsterInstance) -> None:
    """They report what was batched on the day, whoever has made it."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    with engine.begin() as connection:
        make_batch(connection, now=yesterday)

    past = materialize(lasting_instance, f"{yesterday:%Y-%m-%d}")
    backfilled = materialize(lasting_instance, today(), tags={"dagster/backfill": "abcdefgh"})

    of_past, of_today = reported(past, ASSET), reported(backfilled, ASSET)
    assert (of_past["made"], of_past["batches"], of_past["amounts"]) == (
        "no: the day is over",
        1,
        "100.00 PHP",
    )
    assert [row["made_by"] for row in of_past["of_the_day"]] == ["finance-1"]
    assert (of_today["made"], of_today["batches"]) == ("no: a backfill only reports", 0)
    assert "requested" not in of_past | of_today
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(payout)) == 1


@contextmanager
def only_a_releaser(superuser_url: str) -> Iterator[None]:
    """Let Dagster's login be no member of buffer_payouts until the end of the block."""
    engine = make_engine(superuser_url)
    with engine.begin() as connection:
        connection.execute(text("REVOKE buffer_payouts FROM dagster"))
    yield
    with engine.begin() as connection:
        connection.execute(text("GRANT buffer_payouts TO dagster"))
    engine.dispose()


@pytest.mark.usefixtures("due")
def test_releaser_pays_nothing_out(
    engine: Engine, lasting_instance: dg.DagsterInstance, superuser_url: str
) -> None:
    """The run says what to grant, and is not retried. A past day is reported all the same."""
    with only_a_releaser(superuser_url):
        failed = materialize(lasting_instance, today(), raise_on_error=False)
        past = materialize(lasting_instance, f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}")

    assert "GRANT buffer_payouts TO dagster;" in failure_of(failed, ASSET)
    run = lasting_instance.get_run_by_id(failed.run_id)
    assert run is not None
    assert run.tags["dagster/retry_on_asset_or_op_failure"] == "false"
    assert past.success
    with engine.connect() as connection:
        assert made(connection) == []


@pytest.mark.usefixtures("due")
def test_broken_payouts_fail_their_checks(lasting_instance: dg.DagsterInstance, superuser_url: str) -> None:
    """Money that is in transit without a payout is named."""
    materialize(lasting_instance, today())
    corrupt(superuser_url, "DELETE FROM buffer.payout WHERE currency = 'EUR'")

    result = materialize(lasting_instance, today(), raise_on_error=False)

    assert outcomes(result) == PASSED | {
        "transit_equals_open_payouts": False,
        "payout_equals_its_transactions": False,
        "payout_batch_equals_its_payouts": False,
    }


def test_schedule_asks_for_today(lasting_instance: dg.DagsterInstance) -> None:
    """By the books' clock, also if the tick is late."""
    schedule = defs.resolve_schedule_def("daily_payouts")
    late = datetime.now(UTC) - timedelta(days=1)

    with dg.build_schedule_context(
        instance=lasting_instance,
        scheduled_execution_time=late,
        repository_def=defs.get_repository_def(),
        resources=RESOURCES,
    ) as context:
        tick = schedule.evaluate_tick(context)

    assert tick.run_requests is not None
    [asked] = tick.run_requests
    run = defs.resolve_job_def(JOB).execute_in_process(instance=lasting_instance, tags=dict(asked.tags))
    assert schedule.job_name == JOB
    assert run.success
    assert lasting_instance.get_materialized_partitions(dg.AssetKey(ASSET)) == {today()}


def noted(instance: dg.DagsterInstance, day: datetime, made: str) -> None:
    """Note in Dagster's history that a run of that day has made its batches, or why not."""
    instance.report_runless_asset_event(
        dg.AssetMaterialization(ASSET, partition=f"{day:%Y-%m-%d}", metadata={"made": made})
    )


@pytest.mark.parametrize(
    ("last_run", "requested"),
    [(8, True), (0, False), (None, False)],
    ids=["before the Monday", "today", "never"],
)
def test_missed_day_is_made_up_for(
    engine: Engine, lasting_instance: dg.DagsterInstance, last_run: int | None, requested: bool
) -> None:
    """A weekly owner is paid for the latest Monday if no run has made batches since. Runs that only
    reported do not count.
    """
    now = datetime.now(UTC)
    monday = now - timedelta(days=now.weekday())
    if last_run is not None:
        noted(lasting_instance, now - timedelta(days=last_run), "yes")
    noted(lasting_instance, now - timedelta(days=1), "no: the day is over")
    with engine.begin() as connection:
        payable(connection)
        set_payout_schedule(connection, owner=PAYEE, schedule="WEEKLY", by=ADMIN, reason="asked", now=NOON)

    result = materialize(lasting_instance, today())
    again = materialize(lasting_instance, today())

    of_monday = [f"schedule:{monday:%Y-%m-%d}:{PAYEE}:PHP"]
    is_monday = now.weekday() == 0
    with engine.connect() as connection:
        found = list(connection.scalars(select(payout.c.reference)))
    assert found == (of_monday if requested or is_monday else [])
    if not is_monday:
        assert (f"{monday:%Y-%m-%d}" in reported(result, ASSET)["missed_days"]) == requested
    assert reported(again, ASSET)["missed_days"] == "none"
