"""The report assets in Dagster: hours and days in one run, partitions, freshness."""

import asyncio
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from typing import Final

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.definitions.freshness_evaluator import FRESHNESS_EVALUATORS_BY_POLICY_TYPE
from dagster._core.instance import InstanceRef
from dagster._core.loader import LoadingContextForTest
from dagster._core.test_utils import freeze_time
from sqlalchemy import Engine, func, select, text

from buffer_pipeline.database import make_engine
from buffer_pipeline.hold import HoldState
from buffer_pipeline.hours import HOUR
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.orchestration.report_assets import HOURS_PER_RUN_MAX, RANGE_END_TAG, RANGE_START_TAG
from buffer_pipeline.orchestration.report_start import START_OF_ALL, reports_start
from buffer_pipeline.settings import load_settings
from buffer_pipeline.tables import counted_hour
from buffer_pipeline_tests.support.builders import books, place_hold
from buffer_pipeline_tests.support.report_runs import COUNTS, REPORT, count, figures, key_of
from buffer_pipeline_tests.support.runs import outcomes, release

REPORT_TABLES: Final = {"counted_hour", "hourly_release_count"}


# ---- hours


@pytest.mark.usefixtures("environment")
def test_a_range_of_hours_is_one_run(
    engine: Engine, lasting_instance: dg.DagsterInstance, this_hour: datetime
) -> None:
    """A backfill of 48 hours is one run with figures for each hour, including zeros. No money moves."""
    first, last = this_hour - 48 * HOUR, this_hour - HOUR
    with engine.begin() as connection:
        place_hold(connection, state=HoldState.RELEASED, held_at=first + timedelta(minutes=5))
        place_hold(connection, held_at=last, currency="JPY", amount="7")
        place_hold(connection, state=HoldState.FROZEN, held_at=last)
        place_hold(connection, job="job-9", state=HoldState.REFUNDED, held_at=last)
        before = {name: rows for name, rows in books(connection).items() if name not in REPORT_TABLES}

    result = count(lasting_instance, first, last)

    assert result.success
    assert outcomes(result) == {"counts_equal_transactions": True}
    counted = figures(result, COUNTS)
    assert len(counted) == 48
    assert lasting_instance.get_materialized_partitions(COUNTS) == set(counted)
    assert (counted[key_of(first)]["holds_released"], counted[key_of(first)]["amount_PHP"]) == (1, 1000.0)
    assert (counted[key_of(last)]["holds_added"], counted[key_of(last)]["refunds"]) == (3, 1)
    assert (counted[key_of(last)]["freezes_opened"], counted[key_of(last)]["freezes_closed"]) == (2, 1)
    quiet = counted[key_of(first + HOUR)]
    assert (quiet["holds_released"], quiet["amounts"]) == (0, "none")
    assert {
        quiet[f"{figure}_{currency}"]
        for figure in ("amount", "lateness_median_seconds", "lateness_max_seconds")
        for currency in ("JPY", "PHP")
    } == {0.0}
    assert all(set(quiet) <= set(figures) for figures in counted.values())
    with engine.connect() as connection:
        after = {name: rows for name, rows in books(connection).items() if name not in REPORT_TABLES}
        by = set(connection.scalars(select(counted_hour.c.counted_by)))
    assert after == before
    assert by == {f"dagster run {result.run_id}"}


def test_the_asset_says_that_it_moves_no_money() -> None:
    """Its description is shown before a backfill. A run takes at most a month of hours."""
    node = defs.resolve_asset_graph().get(COUNTS)

    assert "a backfill moves no money" in (node.description or "")
    assert node.backfill_policy == dg.BackfillPolicy.multi_run(HOURS_PER_RUN_MAX)
    assert isinstance(node.partitions_def, dg.HourlyPartitionsDefinition)
    assert node.partitions_def.timezone == "UTC"


@pytest.mark.usefixtures("environment")
def test_hour_in_progress_fails_the_run(
    engine: Engine,
    instance: dg.DagsterInstance,
    this_hour: datetime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run names the hour, counts nothing and is not retried. The hour stays missing."""
    monkeypatch.setattr(
        "buffer_pipeline.reports.hourly_counts.count_hours.__kwdefaults__", {"wait_seconds_max": 0}
    )
    with engine.connect() as writer, writer.begin():
        place_hold(writer, held_at=this_hour - HOUR)

        result = count(instance, this_hour - 2 * HOUR, this_hour - HOUR, raise_on_error=False)

    failure = result.failure_data_for_node("hourly_release_counts")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert f"hour {this_hour - HOUR:%Y-%m-%dT%H:%MZ}: a transaction still writes" in str(
        failure.user_failure_data.description
    )
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(counted_hour)) == 0


def test_the_first_day_may_be_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """With BUFFER_REPORTS_START, whatever the books contain."""
    monkeypatch.setenv("BUFFER_REPORTS_START", "2025-03-01")

    assert reports_start(load_settings()) == datetime(2025, 3, 1, tzinfo=UTC)


@pytest.mark.usefixtures("environment")
def test_partitions_begin_with_the_books(engine: Engine, this_hour: datetime) -> None:
    """A code server has no hour before the first payment, so "all" are the hours of the books."""
    with engine.begin() as connection:
        place_hold(connection, held_at=this_hour - 50 * HOUR + timedelta(minutes=7))

    begin = loaded_partitions()

    assert begin == [key_of(this_hour - 50 * HOUR), f"{this_hour - 50 * HOUR:%Y-%m-%d}"]


@pytest.mark.usefixtures("environment")
def test_hours_that_empty_books_had_are_counted_once_there_are_payments(
    engine: Engine, lasting_instance: dg.DagsterInstance, this_hour: datetime
) -> None:
    """A run loads the definitions again, and accepts hours before the books' present first hour."""
    today = reports_start(load_settings())
    first, last = key_of(this_hour - 3 * HOUR), key_of(this_hour - HOUR)
    with engine.begin() as connection:
        place_hold(connection, held_at=this_hour - 2 * HOUR)

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as spawned:
        counted = spawned.submit(count_in_a_run, lasting_instance.get_ref(), first, last).result()

    assert today == datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert counted
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(counted_hour)) == 3


def count_in_a_run(instance: InstanceRef, first: str, last: str) -> bool:
    """Count these hours as a process that the code server starts for a run."""
    with dg.DagsterInstance.from_ref(instance) as own:
        return (
            defs.resolve_job_def("count_hours")
            .execute_in_process(instance=own, tags={RANGE_START_TAG: first, RANGE_END_TAG: last})
            .success
        )


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://nobody@127.0.0.1:1/nothing",
        "postgresql://nobody:@[broken/nothing",
        "postgresql://nobody@127.0.0.1:port/nothing",
    ],
)
def test_definitions_load_without_the_books(url: str) -> None:
    """Partitions then begin as for empty books."""
    settings = load_settings().model_copy(update={"database_url": url})
    began = time.monotonic()

    start = reports_start(settings)

    assert start == START_OF_ALL
    assert time.monotonic() - began < 10


def test_definitions_load_while_the_books_are_locked(database_url: str, superuser_url: str) -> None:
    """A migration that locks the table does not keep a code server from starting."""
    settings = load_settings().model_copy(update={"database_url": database_url})
    migrating = make_engine(superuser_url)
    with migrating.connect() as connection, connection.begin():
        connection.execute(text("LOCK TABLE buffer.transaction"))

        start = reports_start(settings)

    migrating.dispose()

    assert start == START_OF_ALL


def loaded_partitions() -> list[str]:
    """Load the definitions in a separate process; return their first hour and day."""
    program = (
        "from buffer_pipeline.orchestration.definitions import defs;"
        " from buffer_pipeline.orchestration.lineage import DAILY_REPORT, HOURLY_COUNTS;"
        " assets = [defs.resolve_asset_graph().get(key) for key in (HOURLY_COUNTS, DAILY_REPORT)];"
        " print(*[asset.partitions_def.get_first_partition_key() for asset in assets])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


# ---- days


@pytest.mark.usefixtures("environment")
def test_a_days_report_has_its_table_and_pictures(
    engine: Engine, lasting_instance: dg.DagsterInstance, this_hour: datetime
) -> None:
    """The day's partition shows the figures and three pictures."""
    day = this_hour.replace(hour=0) - timedelta(days=2)
    with engine.begin() as connection:
        place_hold(connection, state=HoldState.RELEASED, held_at=day + timedelta(hours=5))

    result = defs.resolve_job_def("report_days").execute_in_process(
        instance=lasting_instance,
        tags={RANGE_START_TAG: f"{day:%Y-%m-%d}", RANGE_END_TAG: f"{day + timedelta(days=1):%Y-%m-%d}"},
    )

    reports = figures(result, REPORT)
    assert set(reports) == {f"{day:%Y-%m-%d}", f"{day + timedelta(days=1):%Y-%m-%d}"}
    shown = reports[f"{day:%Y-%m-%d}"]
    pictures = [
        value
        for value in shown.values()
        if isinstance(value, str) and "](data:image/svg+xml;base64,PHN2Zy" in value
    ]
    assert len(pictures) == 3
    event = next(
        event.materialization
        for event in result.get_asset_materialization_events()
        if event.materialization.partition == f"{day:%Y-%m-%d}"
    )
    table = event.metadata["figures"]
    assert isinstance(table, dg.TableMetadataValue)
    rows = [dict(record.data) for record in table.records]
    stated = defs.resolve_asset_graph().get(REPORT).metadata["dagster/column_schema"]
    assert isinstance(stated, dg.TableSchema)
    assert list(rows[0]) == [column.name for column in stated.columns]
    released = next(row for row in rows if row["figure"] == "amount released")
    assert (released["currency"], released["day"]) == ("PHP", "1,000.00")


@pytest.mark.usefixtures("environment")
def test_day_in_progress_is_not_reported(
    engine: Engine, instance: dg.DagsterInstance, this_hour: datetime
) -> None:
    """A run launched by hand fails and names the hour."""
    today = this_hour.replace(hour=0)
    with engine.connect() as writer, writer.begin():
        place_hold(writer, held_at=today - timedelta(minutes=5))

        result = defs.resolve_job_def("report_days").execute_in_process(
            instance=instance,
            raise_on_error=False,
            partition_key=f"{today - timedelta(days=1):%Y-%m-%d}",
        )

    failure = result.failure_data_for_node("daily_release_report")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert "T23:00Z: a transaction still writes into it" in str(failure.user_failure_data.description)


# ---- freshness


@pytest.mark.usefixtures("environment")
def test_an_hour_that_is_missed_turns_late_within_75_minutes(
    lasting_instance: dg.DagsterInstance, this_hour: datetime
) -> None:
    """After an hourly release, even an empty one, assets are fresh. A quarter past a missed hour they are
    late.
    """
    with freeze_time(this_hour):
        release(lasting_instance)
        count(lasting_instance, this_hour - HOUR, this_hour - HOUR)
    states = {}
    for minutes in (59, 66, 74, 76):
        with freeze_time(this_hour + timedelta(minutes=minutes)):
            states[minutes] = {
                name: freshness_of(lasting_instance, name)
                for name in (
                    "released_transactions",
                    "release_notifications",
                    "release_counts",
                    "hourly_release_counts",
                )
            }

    assert [set(states[minutes].values()) for minutes in (59, 66, 74, 76)] == [
        {FreshnessState.PASS},
        {FreshnessState.WARN},
        {FreshnessState.WARN},
        {FreshnessState.FAIL},
    ]


def test_a_dry_run_keeps_nothing_fresh(environment: None, lasting_instance: dg.DagsterInstance) -> None:
    """It is no release."""
    del environment
    release(lasting_instance, dry_run=True)

    assert freshness_of(lasting_instance, "released_transactions") is FreshnessState.UNKNOWN


def freshness_of(instance: dg.DagsterInstance, name: str) -> FreshnessState:
    """Return the result of Dagster's freshness daemon for an asset."""
    node = defs.resolve_asset_graph().get(dg.AssetKey(name))
    policy = node.freshness_policy
    assert policy is not None
    evaluator = FRESHNESS_EVALUATORS_BY_POLICY_TYPE[type(policy)]()
    return asyncio.run(evaluator.evaluate_freshness(LoadingContextForTest(instance), node))
