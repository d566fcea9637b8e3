"""Settings and clocks reach everything in Dagster through resources. Private modules are imported in one
file.
"""

import re
from datetime import date, datetime, timedelta
from typing import Any, Final

import dagster as dg
import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import Engine, select

from buffer_pipeline.hold import HoldState
from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline.orchestration.definitions import build_defs
from buffer_pipeline.orchestration.report_assets import RANGE_END_TAG, RANGE_START_TAG
from buffer_pipeline.orchestration.resources import Clock
from buffer_pipeline.settings import Settings
from buffer_pipeline.tables import counted_hour, transaction
from buffer_pipeline_tests.support.builders import DAY_7, NOON, place_hold, state_of
from buffer_pipeline_tests.support.paths import ROOT
from buffer_pipeline_tests.support.report_runs import key_of
from buffer_pipeline_tests.support.runs import JOB_NAME

SOURCES: Final = sorted((ROOT / "buffer_pipeline").rglob("*.py"))
SHELL: Final = [path for path in SOURCES if path.parent.name == "orchestration"]


@pytest.fixture(autouse=True)
def useless_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without usable books, and with another limit for stuck payments."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("BUFFER_STUCK_AFTER_HOURS", "999")


def at(moment: datetime) -> Clock:
    """Return stopped clocks."""
    return Clock(books=lambda _: moment, writer=lambda _: moment, machine=lambda: moment)


def sensor_tick(definitions: dg.Definitions, name: str, instance: dg.DagsterInstance) -> Any:
    """Evaluate a sensor with the resources of its definitions."""
    with dg.build_sensor_context(
        instance=instance,
        repository_def=definitions.get_repository_def(),
        sensor_name=name,
        resources=dict(definitions.resources or {}),
    ) as context:
        return definitions.resolve_sensor_def(name).evaluate_tick(context)


def schedule_tick(definitions: dg.Definitions, name: str, instance: dg.DagsterInstance) -> Any:
    """Evaluate a schedule with the resources of its definitions."""
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=NOON,
        repository_def=definitions.get_repository_def(),
        resources=dict(definitions.resources or {}),
    ) as context:
        return definitions.resolve_schedule_def(name).evaluate_tick(context)


def test_overrides_reach_every_op_of_a_release(
    engine: Engine, database_url: str, instance: dg.DagsterInstance, httpserver: HTTPServer
) -> None:
    """The run uses the given settings' books and heartbeat, and the given time."""
    httpserver.expect_request("/heartbeat").respond_with_data("OK")
    with engine.begin() as connection:
        hold_id = place_hold(connection)
    settings = Settings(database_url=database_url, heartbeat_url=httpserver.url_for("/heartbeat"))
    now = DAY_7 + timedelta(minutes=5)

    result = (
        build_defs({"settings": settings, "clock": at(now)})
        .resolve_job_def(JOB_NAME)
        .execute_in_process(instance=instance)
    )

    with engine.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.RELEASED
        released_at = connection.scalars(
            select(transaction.c.recorded_at).where(transaction.c.type == "EARNING")
        ).all()
    selected = next(
        event
        for event in result.all_node_events
        if event.event_type_value == "STEP_OUTPUT" and event.node_name == "select_matured_transactions"
    )
    assert selected.step_output_data.metadata["due_by"].value == now.timestamp()
    assert released_at == [now]
    assert len(httpserver.log) == 1


def test_overrides_reach_a_sensor(
    engine: Engine, database_url: str, lasting_instance: dg.DagsterInstance
) -> None:
    """The clock decides what is overdue, the settings what is stuck."""
    with engine.begin() as connection:
        place_hold(connection)
    settings = Settings(database_url=database_url, stuck_after_hours=5)
    before = build_defs({"settings": settings, "clock": at(DAY_7)})
    after = build_defs({"settings": settings, "clock": at(DAY_7 + 2 * HOUR)})

    early = sensor_tick(before, "overdue_releases", lasting_instance)
    late = sensor_tick(after, "overdue_releases", lasting_instance)
    stuck = sensor_tick(before, "stuck_frozen_payments", lasting_instance)

    assert early.skip_message == "no payment has been due for more than an hour"
    assert late.skip_message.startswith("1 payment due for more than an hour and not released")
    assert stuck.skip_message == "no payment has been frozen for more than 5 hours"


def test_overrides_reach_a_schedule(
    engine: Engine, database_url: str, lasting_instance: dg.DagsterInstance
) -> None:
    """It requests hours from the settings' first day up to the clock's time."""
    with engine.begin() as connection:
        place_hold(connection, held_at=NOON)
    first_day = NOON.date() + timedelta(days=1)
    now = NOON + timedelta(days=3)
    definitions = build_defs(
        {
            "settings": Settings(database_url=database_url, reports_start=first_day),
            "clock": at(now),
        }
    )

    (request,) = schedule_tick(definitions, "hourly_counts", lasting_instance).run_requests

    assert request.tags[RANGE_START_TAG] == f"{first_day:%Y-%m-%d}-00:00"
    assert request.tags[RANGE_END_TAG] == key_of(hour_of(now) - HOUR)


def test_overrides_reach_a_count(
    engine: Engine, database_url: str, lasting_instance: dg.DagsterInstance
) -> None:
    """The clock determines the time of the count, and which hours are over."""
    with engine.begin() as connection:
        place_hold(connection, held_at=NOON)
    settings = Settings(database_url=database_url, reports_start=NOON.date())
    now = NOON + HOUR

    for clock in (NOON, now):
        build_defs({"settings": settings, "clock": at(clock)}).resolve_job_def(
            "count_hours"
        ).execute_in_process(instance=lasting_instance, partition_key=key_of(NOON), raise_on_error=False)

    with engine.connect() as connection:
        counted_at = connection.scalars(select(counted_hour.c.counted_at)).all()
    assert counted_at == [now]


def test_overrides_reach_the_partitions(database_url: str) -> None:
    """They begin with the settings' day, or with the clock's."""
    settings = Settings(database_url=database_url)
    by_settings = build_defs({"settings": settings.model_copy(update={"reports_start": date(2025, 3, 1)})})
    by_clock = build_defs({"settings": settings, "clock": at(NOON)})

    assert first_partitions(by_settings) == ["2025-03-01-00:00", "2025-03-01"]
    assert first_partitions(by_clock) == [f"{NOON:%Y-%m-%d}-00:00", f"{NOON:%Y-%m-%d}"]


def first_partitions(definitions: dg.Definitions) -> list[str | None]:
    """Return the first hour and the first day of the report assets."""
    graph = definitions.resolve_asset_graph()
    found = [
        graph.get(dg.AssetKey(name)).partitions_def
        for name in ("hourly_release_counts", "daily_release_report")
    ]
    return [each.get_first_partition_key() for each in found if each is not None]


def test_nothing_reads_settings_or_clocks_past_the_resources() -> None:
    """Only `resources.py` in the Dagster shell loads settings and reads a clock."""
    reads = re.compile(r"load_settings|database_clock\(|clock_of_a_writer|datetime\.now|time\.time\(")

    found = {path.name for path in SHELL if reads.search(path.read_text(encoding="utf-8"))}

    assert found == {"resources.py"}


def test_private_modules_of_dagster_are_imported_in_one_file() -> None:
    """`dagster_internals.py` has every such import with its reason. dagster.yaml names none."""
    private = re.compile(r"^\s*(?:from|import) dagster\w*(?:\.\w+)*\._\w+.*$", re.MULTILINE)

    found = {path.name for path in SOURCES if private.search(path.read_text(encoding="utf-8"))}
    internals = (ROOT / "buffer_pipeline" / "orchestration" / "dagster_internals.py").read_text("utf-8")
    blocks = [block for block in internals.split("\n\n") if private.search(block)]

    assert found == {"dagster_internals.py"}
    assert all(block.startswith("# ") for block in blocks)
    assert "dagster._" not in (ROOT / "dagster.yaml").read_text("utf-8")
