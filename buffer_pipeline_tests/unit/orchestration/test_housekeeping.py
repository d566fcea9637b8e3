"""Housekeeping: which of Dagster's runs, ticks and logs are deleted, and which stay."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO, cast

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from sqlalchemy import text

from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.orchestration import housekeeping
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.orchestration.housekeeping import Pruned, prune
from buffer_pipeline_tests.support.builders import NOON
from buffer_pipeline_tests.support.dagster_history import (
    HOURS,
    SHELF_HOLDS,
    evaluate,
    files_of,
    hours,
    materialize,
    run_ids,
    run_in,
    run_job,
    shelf,
    tick,
    ticks,
)
from buffer_pipeline_tests.support.storage import create_database, instance_on


@pytest.fixture(scope="module")
def _empty_storage(server: EmbeddedServer) -> str:
    """The name of a template database with Dagster's empty tables."""
    create_database(server, "dagster_empty")
    with instance_on(server, "dagster_empty"):
        return "dagster_empty"


@pytest.fixture
def storage(server: EmbeddedServer, _empty_storage: str) -> str:
    """The name of a Dagster database on PostgreSQL, as in production."""
    name = f"dagster_{os.urandom(6).hex()}"
    create_database(server, name, template=_empty_storage)
    return name


@pytest.fixture
def postgresql(server: EmbeddedServer, storage: str) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance whose storage is PostgreSQL."""
    with instance_on(server, storage) as instance:
        yield instance


@pytest.fixture(params=["sqlite", "postgresql"])
def instance(request: pytest.FixtureRequest) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance on each kind of storage."""
    if request.param == "postgresql":
        yield request.getfixturevalue("postgresql")
        return
    with dg.instance_for_test() as instance:
        yield instance


def prune_all(instance: dg.DagsterInstance, **choices: Any) -> Pruned:
    """Prune everything before this moment."""
    return prune(instance, **{"before": datetime.now(UTC), "check_keys": [SHELF_HOLDS], **choices})


# ---- runs


def test_old_runs_go_with_their_logs_and_files(instance: dg.DagsterInstance) -> None:
    """Nothing is left of an old run; a newer one stays complete."""
    old = run_job(instance)
    files_before = files_of(instance, old)
    moment = datetime.now(UTC)
    young = run_job(instance)

    pruned = prune(instance, before=moment, check_keys=[])

    assert pruned == Pruned(runs=1, ticks=0, kept={}, runs_left=0)
    assert run_ids(instance) == {young}
    assert instance.all_logs(old) == []
    assert instance.all_logs(young) != []
    # The value of `take`, and its output.
    assert "result" in files_before
    assert any(name.endswith(".err") for name in files_before)
    assert files_of(instance, old) == set()
    assert len(files_of(instance, young)) == len(files_before)


def test_only_finished_runs_go(instance: dg.DagsterInstance) -> None:
    """Succeeded, failed and canceled runs are deleted; waiting, running and canceling ones stay."""
    finished = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
    # Not a run that Dagster's queue knows.
    statuses = set(dg.DagsterRunStatus) - {dg.DagsterRunStatus.QUEUED}
    runs = {status: run_in(instance, status) for status in statuses}

    pruned = prune_all(instance)

    assert pruned.runs == 3
    assert run_ids(instance) == {run for status, run in runs.items() if status not in finished}


def test_a_run_is_as_old_as_its_end(instance: dg.DagsterInstance) -> None:
    """A run that began before the moment and ended after it stays."""
    run_id = run_in(instance, dg.DagsterRunStatus.STARTED)
    moment = datetime.now(UTC)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    instance.report_run_canceled(run)

    pruned = prune(instance, before=moment, check_keys=[])

    assert pruned.runs == 0
    assert run_ids(instance) == {run_id}


def test_the_latest_materialization_stays(instance: dg.DagsterInstance) -> None:
    """An asset's page keeps its latest materialization, however old; earlier ones are deleted."""
    materialize(instance, shelf)
    latest = materialize(instance, shelf)

    pruned = prune_all(instance)

    assert (pruned.runs, pruned.runs_left) == (1, 0)
    assert pruned.kept == {latest: "latest materialization of shelf"}
    assert run_ids(instance) == {latest}
    shown = instance.fetch_materializations(shelf.key, limit=10).records
    assert [record.run_id for record in shown] == [latest]


def test_the_latest_evaluation_of_a_check_stays(instance: dg.DagsterInstance) -> None:
    """Earlier ones are deleted."""
    materialize(instance, shelf)
    evaluate(instance)
    evaluated = evaluate(instance)
    materialized = materialize(instance, shelf)

    pruned = prune_all(instance)

    assert pruned.kept == {
        evaluated: "latest evaluation of shelf:shelf_holds",
        materialized: "latest materialization of shelf",
    }
    assert pruned.runs == 2
    assert run_ids(instance) == {evaluated, materialized}
    record = instance.get_latest_asset_check_evaluation_record(SHELF_HOLDS)
    assert record is not None
    assert record.run_id == evaluated


def test_hours_that_were_shown_stay_materialized(instance: dg.DagsterInstance) -> None:
    """The UI does not show their partitions as missing, although only the latest hour's run stays."""
    for partition in ("2026-03-02-00:00", "2026-03-02-01:00"):
        materialize(instance, hours, partition=partition)
    shown_before = materialized_hours(instance)

    pruned = prune_all(instance)

    assert pruned.runs == 1
    assert shown_before == {"2026-03-02-00:00", "2026-03-02-01:00"}
    assert materialized_hours(instance) == shown_before


def materialized_hours(instance: dg.DagsterInstance) -> set[str]:
    """Return the partitions that the UI shows as materialized."""
    status = get_and_update_asset_status_cache_value(instance, hours.key, HOURS)
    assert status is not None
    return set(status.deserialize_materialized_partition_subsets(HOURS).get_partition_keys())


def test_a_dry_run_deletes_nothing(instance: dg.DagsterInstance) -> None:
    """It reports what a real run would do, including the limit and kept runs."""
    for _ in range(3):
        materialize(instance, shelf)
    run_job(instance)
    tick(instance, timestamps=[1.0, 2.0])
    moment = datetime.now(UTC)
    before = (run_ids(instance), ticks(instance))

    dry = prune(instance, before=moment, check_keys=[], dry_run=True, runs_max=2)
    after = (run_ids(instance), ticks(instance))
    real = prune(instance, before=moment, check_keys=[], runs_max=2)

    assert after == before
    assert real == dry
    assert (real.runs, real.ticks, len(real.kept), real.runs_left) == (2, 1, 1, 1)


def test_limit_of_deleted_runs(instance: dg.DagsterInstance) -> None:
    """The oldest are deleted first, the rest is counted, and the next run continues."""
    runs = [run_in(instance, dg.DagsterRunStatus.SUCCESS) for _ in range(5)]

    first = prune_all(instance, runs_max=2)
    left_by_first = run_ids(instance)
    second = prune_all(instance)

    assert (first.runs, first.runs_left) == (2, 3)
    assert left_by_first == set(runs[2:])
    assert (second.runs, second.runs_left) == (3, 0)


def test_pruning_stops_at_its_time_limit(instance: dg.DagsterInstance) -> None:
    """It reports how many runs are left."""
    run_in(instance, dg.DagsterRunStatus.SUCCESS)

    pruned = prune_all(instance, seconds_max=0)

    assert (pruned.runs, pruned.runs_left) == (0, 1)


def test_runs_beyond_the_first_page_go_too(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many, also with a kept run between them."""
    monkeypatch.setattr(housekeeping, "_PAGE", 2)
    for _ in range(3):
        run_in(instance, dg.DagsterRunStatus.SUCCESS)
    kept = materialize(instance, shelf)
    for _ in range(3):
        run_in(instance, dg.DagsterRunStatus.SUCCESS)

    pruned = prune_all(instance)

    assert pruned.runs == 6
    assert run_ids(instance) == {kept}


# ---- ticks


def test_old_ticks_go_with_their_logs(instance: dg.DagsterInstance) -> None:
    """A tick at exactly the moment stays."""
    moment = NOON.timestamp()
    log_key = ["__repository__", "a_schedule", "1"]
    # A text stream, despite its annotation.
    with instance.compute_log_manager.open_log_stream(log_key, ComputeIOType.STDERR) as stream:
        print("looked", file=cast("TextIO", stream))
    log = instance.compute_log_manager.get_log_metadata(log_key).stderr_location
    assert log is not None
    written_before = Path(log).exists()
    tick(instance, timestamps=[moment - 7200], log_key=log_key)
    tick(instance, timestamps=[moment - 3600, moment, moment + 3600])

    pruned = prune(instance, before=NOON, check_keys=[])

    assert pruned.ticks == 2
    assert ticks(instance) == [moment + 3600, moment]
    assert written_before
    assert not Path(log).exists()


def test_the_latest_tick_stays(instance: dg.DagsterInstance) -> None:
    """A schedule that has been off still shows its last tick."""
    tick(instance, timestamps=[10.0, 20.0, 30.0])

    pruned = prune(instance, before=NOON, check_keys=[])

    assert pruned.ticks == 2
    assert ticks(instance) == [30.0]


def test_ticks_beyond_the_first_page_go_too(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many, and they are counted."""
    monkeypatch.setattr(housekeeping, "_PAGE", 2)
    tick(instance, timestamps=[10.0, 20.0, 30.0, 40.0, 50.0, 60.0])

    pruned = prune(instance, before=NOON, check_keys=[])

    assert pruned.ticks == 5
    assert ticks(instance) == [60.0]


# ---- the job


@pytest.fixture
def age(server: EmbeddedServer, storage: str) -> Callable[..., None]:
    """Move a run this many days into the past."""

    def move(run_id: str, *, days: int) -> None:
        engine = make_engine(server.url(storage))
        with engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE public.runs SET update_timestamp ="
                    " update_timestamp - make_interval(days => :days) WHERE run_id = :run_id"
                ),
                {"days": days, "run_id": run_id},
            )
        engine.dispose()

    return move


def run_prune(instance: dg.DagsterInstance, **config: object) -> dict[str, Any]:
    """Run the job as a run's process does, with its repository; return the op's metadata."""
    repository = ReconstructableRepository.for_module("buffer_pipeline.orchestration.definitions", "defs")
    result = dg.execute_job(
        repository.get_reconstructable_job("prune_runs"),
        instance=instance,
        run_config={"ops": {"prune": {"config": config}}},
        raise_on_error=True,
    )
    event = next(event for event in result.all_events if event.event_type_value == "STEP_OUTPUT")
    return {
        name: [dict(record.data) for record in value.records]
        if isinstance(value, dg.TableMetadataValue)
        else value.value
        for name, value in event.step_output_data.metadata.items()
    }


def test_the_job_keeps_ninety_days(postgresql: dg.DagsterInstance, age: Callable[..., None]) -> None:
    """By default, a run 91 days old is deleted and one 89 days old stays. The op reports it."""
    old, young = run_job(postgresql), run_job(postgresql)
    age(old, days=91)
    age(young, days=89)

    dry = run_prune(postgresql, dry_run=True)
    runs_after_dry = run_ids(postgresql)
    real = run_prune(postgresql)

    assert {old, young} < runs_after_dry
    assert old not in run_ids(postgresql)
    assert young in run_ids(postgresql)
    for reported, was_dry in ((dry, True), (real, False)):
        counts = {name: reported[name] for name in ("runs", "ticks", "runs_kept", "runs_left", "dry_run")}
        assert counts == {"runs": 1, "ticks": 0, "runs_kept": 0, "runs_left": 0, "dry_run": was_dry}
        assert reported["seconds"] >= 0
        ago = datetime.now(UTC) - datetime.fromtimestamp(reported["older_than"], UTC)
        assert timedelta(days=90) <= ago < timedelta(days=90, minutes=5)


def test_job_lists_kept_runs(postgresql: dg.DagsterInstance, age: Callable[..., None]) -> None:
    """With the reason."""
    latest = materialize(postgresql, shelf)
    age(latest, days=91)

    reported = run_prune(postgresql)

    assert (reported["runs"], reported["runs_kept"]) == (0, 1)
    assert reported["kept"] == [{"run": latest, "because": "latest materialization of shelf"}]


def test_the_days_are_a_setting_and_a_config(
    postgresql: dg.DagsterInstance, age: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """BUFFER_KEEP_RUNS_DAYS sets the limit, and the job's `keep_days` overrides it."""
    run_id = run_job(postgresql)
    age(run_id, days=10)
    monkeypatch.setenv("BUFFER_KEEP_RUNS_DAYS", "9")

    by_config = run_prune(postgresql, keep_days=11, dry_run=True)
    by_setting = run_prune(postgresql, dry_run=True)

    assert (by_config["runs"], by_setting["runs"]) == (0, 1)


def test_schedule_requests_one_real_run_a_day() -> None:
    """At 03:30 UTC, with the job's documented defaults."""
    schedule = defs.resolve_schedule_def("daily_prune")
    with dg.instance_for_test() as instance:
        requested = schedule.evaluate_tick(
            dg.build_schedule_context(instance=instance, scheduled_execution_time=NOON)
        )
    op = defs.resolve_job_def("prune_runs").run_config_schema.config_type.fields["ops"]  # type: ignore[attr-defined]
    fields = op.config_type.fields["prune"].config_type.fields["config"].config_type.fields

    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 3 * * *", "UTC")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert schedule.job_name == "prune_runs"
    assert requested.run_requests is not None
    assert [request.run_config for request in requested.run_requests] == [{}]
    assert fields["dry_run"].default_value is False
    assert not fields["keep_days"].is_required
    assert all(field.description for field in fields.values())
