"""Runs of the Dagster definitions in this process, and their results."""

from typing import Any, Final

import dagster as dg
from sqlalchemy import Connection, func, select, text

from buffer_pipeline.database import make_engine
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.tables import delivery, notification

JOB_NAME: Final = "release_pending_payments"


def release(
    instance: dg.DagsterInstance, *, raise_on_error: bool = True, **config: object
) -> dg.ExecuteInProcessResult:
    """Run the job as from the Launchpad."""
    return defs.resolve_job_def(JOB_NAME).execute_in_process(
        instance=instance,
        raise_on_error=raise_on_error,
        run_config={
            "ops": {"released_transactions": {"ops": {"select_matured_transactions": {"config": config}}}}
        },
    )


def reported(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """Return the metadata of the asset's only materialization in the run, with a table as its rows."""
    events = [
        event.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey(asset)
    ]
    assert len(events) == 1
    return {
        name: [dict(record.data) for record in value.records]
        if isinstance(value, dg.TableMetadataValue)
        else value.value
        for name, value in events[0].metadata.items()
    }


def outcomes(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """Return check -> whether it passed."""
    return {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}


def rows_of(evaluation: dg.AssetCheckEvaluation, name: str) -> list[Any]:
    """Return the rows of a table in the check's metadata."""
    table = evaluation.metadata[name]
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(record.data) for record in table.records]


def delivered(connection: Connection) -> tuple[int, int]:
    """Return the number of notifications and of finished deliveries."""
    return (
        connection.execute(select(func.count()).select_from(notification)).scalar_one(),
        connection.execute(
            select(func.count()).select_from(delivery).where(delivery.c.state == "DELIVERED")
        ).scalar_one(),
    )


def failure_of(result: dg.ExecuteInProcessResult, step: str) -> str:
    """Return the error of the failed step."""
    error = result.failure_data_for_node(step)
    assert error is not None
    assert error.user_failure_data is not None
    return error.user_failure_data.description or ""


def corrupt(superuser_url: str, *statements: str) -> None:
    """Change the books in a way that no verb and no role can."""
    engine = make_engine(superuser_url)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()
