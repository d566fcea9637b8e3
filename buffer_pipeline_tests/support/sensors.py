"""The sensors of the definitions, evaluated as by the daemon."""

from typing import Any, Final

import dagster as dg
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.test_utils import create_run_for_test
from sqlalchemy import Engine, text

from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.orchestration.resources import Clock
from buffer_pipeline_tests.support.builders import place_hold
from buffer_pipeline_tests.support.runs import JOB_NAME

STUCK: Final = "stuck_frozen_payments"

OVERDUE: Final = "overdue_releases"

FAILED_CHECKS: Final = "failed_checks"

DAGSTER_URL: Final = "https://dagster.example.com"


class Sensor:
    """A sensor of the definitions with its books and cursor, as the daemon keeps them."""

    def __init__(self, name: str, instance: dg.DagsterInstance, **resources: object) -> None:
        self._name = name
        self._instance = instance
        self._resources = {"clock": Clock(), **resources}
        self.cursor: str | None = None

    def tick(self) -> SensorExecutionData:
        """Evaluate it once."""
        with dg.build_sensor_context(
            instance=self._instance,
            # With both, the tick has its own log, as under the daemon.
            instance_ref=self._instance.get_ref(),
            repository_name="__repository__",
            repository_def=defs.get_repository_def(),
            sensor_name=self._name,
            cursor=self.cursor,
            resources=self._resources,
        ) as context:
            data = defs.resolve_sensor_def(self._name).evaluate_tick(context)
        self.cursor = data.cursor
        assert not data.run_requests
        return data


def evaluation_in(tick: SensorExecutionData) -> dg.AssetCheckEvaluation:
    """Return the tick's only check evaluation."""
    found = [event for event in tick.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
    assert len(found) == 1
    return found[0]


def place(engine: Engine, **facts: Any) -> int:
    """Place a hold in a separate transaction."""
    with engine.begin() as connection:
        return place_hold(connection, **facts)


def date_alerts_back(engine: Engine, interval: str) -> None:
    """Move the recorded alerts back by `interval`. To the sensor this looks like elapsed time."""
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE buffer.alert SET period = period - CAST(:by AS interval)"), {"by": interval}
        )


def fail(instance: dg.DagsterInstance, message: str = "it broke", **facts: Any) -> str:
    """Let a run fail as the run monitor reports it, and return its id."""
    run: dg.DagsterRun = create_run_for_test(instance, job_name=JOB_NAME, **facts)
    instance.report_run_failed(run, message=message)
    return run.run_id
