"""Runs, materializations and ticks, as in a Dagster that has been in use."""

import sys
from pathlib import Path
from typing import Any, Final

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

HOURS: Final = dg.HourlyPartitionsDefinition(start_date="2026-03-02-00:00", end_offset=0)


@dg.op
def take() -> int:
    """Return a value, which is stored in a file of the run, and print."""
    print("taken", file=sys.stderr)
    return 17


@dg.op
def use(taken: int) -> None:
    """Load the stored value."""
    assert taken == 17


@dg.job(executor_def=dg.in_process_executor)
def two_ops() -> None:
    """Leave events, a compute log and a file, as a real run does."""
    use(take())


@dg.asset
def shelf() -> None:
    """An asset."""


@dg.asset(partitions_def=HOURS)
def hours() -> None:
    """An asset with hourly partitions."""


@dg.asset_check(asset=shelf)
def shelf_holds() -> dg.AssetCheckResult:
    """A check that passes."""
    return dg.AssetCheckResult(passed=True)


SHELF_HOLDS: Final = dg.AssetCheckKey(shelf.key, "shelf_holds")


def run_job(instance: dg.DagsterInstance) -> str:
    """Run a job and return its run's id."""
    result = dg.execute_job(dg.reconstructable(two_ops), instance=instance, raise_on_error=True)
    assert result.success
    return result.run_id


def materialize(instance: dg.DagsterInstance, *definitions: Any, partition: str | None = None) -> str:
    """Materialize or check and return the run's id."""
    result = dg.materialize([*definitions], instance=instance, partition_key=partition)
    assert result.success
    return result.run_id


def evaluate(instance: dg.DagsterInstance) -> str:
    """Run only the check and return the run's id."""
    result = dg.materialize(
        [shelf, shelf_holds], instance=instance, selection=dg.AssetSelection.checks(shelf_holds)
    )
    assert result.success
    return result.run_id


def run_in(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> str:
    """Record a run with this status and return its id."""
    return instance.create_run_for_job(two_ops, status=status).run_id


def run_ids(instance: dg.DagsterInstance) -> set[str]:
    """Return the runs in Dagster's storage."""
    return {run.run_id for run in instance.get_runs()}


def files_of(instance: dg.DagsterInstance, run_id: str) -> set[str]:
    """Return the run's files on disk, except SQLite's."""
    folder = Path(instance.storage_directory()) / run_id
    return {path.name for path in folder.rglob("*") if path.is_file()}


ORIGIN: Final = RemoteInstigatorOrigin(
    RemoteRepositoryOrigin(
        ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="anywhere")),
        "__repository__",
    ),
    "a_schedule",
)
STATE: Final = InstigatorState(
    ORIGIN, InstigatorType.SCHEDULE, InstigatorStatus.RUNNING, ScheduleInstigatorData("0 * * * *")
)


def tick(instance: dg.DagsterInstance, *, timestamps: list[float], log_key: list[str] | None = None) -> None:
    """Record a schedule's ticks as the daemon does."""
    if not instance.all_instigator_state():
        instance.add_instigator_state(STATE)
    for timestamp in timestamps:
        instance.create_tick(
            TickData(
                instigator_origin_id=STATE.instigator_origin_id,
                instigator_name=STATE.name,
                instigator_type=InstigatorType.SCHEDULE,
                status=TickStatus.SUCCESS,
                timestamp=timestamp,
                run_ids=[],
                selector_id=STATE.selector_id,
                log_key=log_key,
            )
        )


def ticks(instance: dg.DagsterInstance) -> list[float]:
    """Return the times of the schedule's ticks, latest first."""
    return [found.timestamp for found in instance.get_ticks(STATE.instigator_origin_id, STATE.selector_id)]
