"""The daily job verifies history with the seals that runs recorded."""

import dagster as dg
import pytest
from sqlalchemy import Engine

from buffer_pipeline.audit.seals import seal
from buffer_pipeline.orchestration.checks import history_as_sealed
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline_tests.support.builders import place_hold
from buffer_pipeline_tests.support.runs import corrupt, release
from buffer_pipeline_tests.support.seals import LINES

pytestmark = pytest.mark.usefixtures("short_ranges")


@pytest.mark.usefixtures("environment")
def test_daily_job_verifies_the_anchors_of_runs(
    engine: Engine, superuser_url: str, instance: dg.DagsterInstance
) -> None:
    """A run records its seal in Dagster. A chain that was rebuilt in the books fails the daily check."""
    with engine.begin() as connection:
        place_hold(connection)
    release(instance)
    job = defs.resolve_job_def("reconcile_books")
    sound = job.execute_in_process(instance=instance, raise_on_error=False)

    corrupt(
        superuser_url,
        "UPDATE buffer.transaction SET recorded_at = recorded_at + interval '1 second'",
        "DELETE FROM buffer.seal",
    )
    seal(engine)
    broken = job.execute_in_process(instance=instance, raise_on_error=False)

    [name] = [key.name for key in history_as_sealed.check_keys]
    passed, failed = (
        next(found for found in result.get_asset_check_evaluations() if found.check_name == name)
        for result in (sound, broken)
    )
    assert (passed.passed, passed.metadata["anchors"].value, passed.metadata["transactions"].value) == (
        True,
        1,
        2,
    )
    assert (failed.passed, failed.metadata["transactions"].value) == (False, 0)
    assert "is not the one that was noted" in str(failed.metadata["offence"].value)


@pytest.mark.usefixtures("environment")
def test_daily_job_warns_of_old_unsealed_lines(every_kind: Engine, instance: dg.DagsterInstance) -> None:
    """For example while a transaction stays open for months."""
    job = defs.resolve_job_def("reconcile_books")
    before = job.execute_in_process(instance=instance, raise_on_error=False)
    seal(every_kind)
    after = job.execute_in_process(instance=instance, raise_on_error=False)

    [name] = [key.name for key in history_as_sealed.check_keys]
    warned, passed = (
        next(found for found in run.get_asset_check_evaluations() if found.check_name == name)
        for run in (before, after)
    )
    assert (warned.passed, warned.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert warned.metadata["unsealed"].value == LINES
    assert passed.passed
