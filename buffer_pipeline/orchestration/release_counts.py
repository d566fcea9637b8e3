"""The last asset of a release run: the heartbeat of the run, then its figures."""

from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg

from buffer_pipeline.currencies import places_of
from buffer_pipeline.logs import release_logged
from buffer_pipeline.monitoring.heartbeat import beat
from buffer_pipeline.orchestration.assets import BEGAN_AT, FRESH_FOR, released_by_this_run, source_of
from buffer_pipeline.orchestration.lineage import (
    GROUP,
    NOTIFICATIONS,
    OWNERS,
    RELEASED,
    RUN_COUNT_COLUMNS,
    RUN_COUNTS,
    TAGS,
)
from buffer_pipeline.orchestration.metadata import share_metadata
from buffer_pipeline.orchestration.resources import Books
from buffer_pipeline.reports.released import released_shares
from buffer_pipeline.reports.totals import counted_shares
from buffer_pipeline.settings import Settings


@dg.op(
    ins={"released_transactions": dg.In(dg.Nothing), "release_notifications": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing),
    description="Sends a request to BUFFER_HEARTBEAT_URL, if it is set, after a release whose books passed"
    " their checks. A receiver that does not answer does not fail the run.",
    tags=TAGS,
)
def send_heartbeat(context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
    """Send one GET request if this run has released, and report whether it was answered."""
    is_answered = False
    # A run that materializes `release_counts` alone has released nothing.
    is_due = settings.heartbeat_url is not None and bool(released_by_this_run(context))
    if is_due:
        with release_logged(settings.log, run_id=context.run_id):
            is_answered = beat(settings.heartbeat_url)
    context.add_output_metadata({"requested": is_due, "answered": is_answered})


@dg.op(
    ins={"heartbeat": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing),
    description="Repeats the figures that `released_transactions` reported in this run, and adds the fees,"
    " taxes and reserves in them, if there are such shares.",
    tags=TAGS,
)
def report_counts(context: dg.OpExecutionContext, books: dg.ResourceParam[Books]) -> None:
    """Report the figures of this run; none if it did not release."""
    released = released_by_this_run(context)
    began = released.get(BEGAN_AT)
    shares: dict[str, Any] = {}
    if isinstance(began, dg.TimestampMetadataValue):
        since = datetime.fromtimestamp(began.value, UTC)
        with books.engine.begin() as connection:
            found = released_shares(connection, source=source_of(context.run_id), since=since)
            # Zero for what was released before, so that a plot has each run.
            known = dict.fromkeys(counted_shares(connection), 0)
            shares = share_metadata(known | found, places_of(connection))
    context.add_output_metadata({**released, **shares})


@dg.graph_asset(
    name=RUN_COUNTS.to_python_identifier(),
    ins={
        "released_transactions": dg.AssetIn(key=RELEASED, dagster_type=dg.Nothing),
        "release_notifications": dg.AssetIn(key=NOTIFICATIONS, dagster_type=dg.Nothing),
    },
    description="Moves no money. The figures of this run, to plot over runs: holds, amounts, batches,"
    " seconds, lateness, what is still due, and the released fees, taxes and reserves, if there are any."
    " A run that released no payment reports zero, so a gap in the plot means that a run did not get here."
    " Before it, the step `send_heartbeat` sends a request to BUFFER_HEARTBEAT_URL.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"dagster"},
    tags=TAGS,
    code_version="3",
    metadata=RUN_COUNT_COLUMNS,
)
def _release_counts(released_transactions: None, release_notifications: None) -> None:
    """Send the heartbeat, then report the figures."""
    # A graph asset must end with the op that makes the asset, so the heartbeat comes first.
    heartbeat = send_heartbeat(
        released_transactions=released_transactions, release_notifications=release_notifications
    )
    # The type checker sees plain functions; inside a graph a call wires an op.
    return report_counts(heartbeat)  # type: ignore[no-any-return]


# `graph_asset` takes no freshness policy.
release_counts: Final = _release_counts.map_asset_specs(
    lambda spec: spec.replace_attributes(freshness_policy=FRESH_FOR)
)
