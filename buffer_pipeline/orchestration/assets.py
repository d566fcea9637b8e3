"""The assets of a release run. Each op opens a transaction, calls one verb and reports metadata."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn

import dagster as dg
from pydantic import Field

from buffer_pipeline import reports, tables
from buffer_pipeline.batch_size import BATCH_LIMIT
from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import database_clock
from buffer_pipeline.delivery.heartbeat import beat
from buffer_pipeline.drain import WORKERS_MAX, drain_matured
from buffer_pipeline.errors import BooksOutOfBalance, InvalidInput
from buffer_pipeline.history import seal
from buffer_pipeline.inputs import parse_as_of
from buffer_pipeline.logs import release_logged
from buffer_pipeline.orchestration.lineage import (
    BUFFERED,
    GROUP,
    NOTIFICATIONS,
    OWNERS,
    RELEASED,
    RELEASED_COLUMNS,
    RUN_COUNT_COLUMNS,
    RUN_COUNTS,
    SEALED,
    TAGS,
    about,
    columns_of,
)
from buffer_pipeline.orchestration.metadata import amount_metadata, amounts_text, table_metadata
from buffer_pipeline.orchestration.resources import Books
from buffer_pipeline.settings import load_settings
from buffer_pipeline.texts import counted

RELEASE_POOL: Final = "release"

NOW: Final = "now"
"""As `as_of`: whatever the database's clock says when the run begins."""

OUTCOME_TAG: Final = "buffer/outcome"
WOULD_RELEASE: Final = "would release"
"""How the outcome of a dry run begins."""

RETRY_FAILED_OPS_TAG: Final = "dagster/retry_on_asset_or_op_failure"

ANCHOR: Final = "anchor"
"""In a materialization: the last seal, by which history can be proved."""

BEGAN_AT: Final = "began_at"
"""In a materialization: the database's clock before the run's first batch."""

FRESH_FOR: Final = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(minutes=65), fail_window=timedelta(minutes=75)
)
"""Late 75 minutes after the latest materialization, so a quarter past an hour that was missed."""


class ReleaseConfig(dg.Config):
    """What a release run takes; the defaults are what the schedule uses."""

    as_of: str | None = Field(
        # Not None: the Launchpad fills in defaults that are values.
        default=NOW,
        description="Release what was due at this moment: `now`, which is the database's clock, or ISO 8601"
        " with a zone, such as 2026-03-02T12:00:00+00:00, not after that clock.",
    )
    batch_limit: int = Field(
        default=BATCH_LIMIT,
        ge=1,
        le=1_000_000,
        description="The most holds in one transaction; it takes fewer where its locks would last for"
        " more than a quarter of a second. The run goes on batch by batch until nothing that was due at the"
        " cut-off is left.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=WORKERS_MAX,
        description="How many connections release at the same time, each a share of the payees.",
    )
    dry_run: bool = Field(
        default=False,
        description="Run the real statements and roll them back: no money moves, nobody is notified.",
    )


@dataclass(frozen=True, kw_only=True)
class Cutoff:
    """What goes from the first op to the second: never the rows."""

    due_by: datetime
    batch_limit: int
    workers: int
    dry_run: bool


@dg.op(
    ins={"buffered_transactions": dg.In(dg.Nothing)},
    description="Fixes the run's cut-off and reports what is due by it. Reads only and moves no money.",
    tags=TAGS,
)
def select_matured_transactions(
    context: dg.OpExecutionContext, config: ReleaseConfig, books: dg.ResourceParam[Books]
) -> Cutoff:
    """Fix the cut-off and count what is due by it."""
    with books.engine.begin() as connection:
        try:
            as_of = None if config.as_of == NOW else config.as_of
            due_by = parse_as_of(as_of, clock=database_clock(connection))
        except InvalidInput as refusal:
            refuse(context, str(refusal))
        due = reports.due_holds(connection, due_by=due_by)
        places = places_of(connection)
    oldest = due.oldest_release_date
    context.add_output_metadata(
        {
            "due_by": dg.MetadataValue.timestamp(due_by),
            "due_holds": due.holds,
            **amount_metadata(due.amounts_minor, places),
            "oldest_release_date": "none" if oldest is None else dg.MetadataValue.timestamp(oldest),
            "dry_run": config.dry_run,
        }
    )
    return Cutoff(
        due_by=due_by, batch_limit=config.batch_limit, workers=config.workers, dry_run=config.dry_run
    )


@dg.op(
    # Not given by a dry run: what did not happen is not materialized, and what follows is skipped.
    out=dg.Out(dg.Nothing, is_required=False),
    pool=RELEASE_POOL,
    description="Moves money: credits the payees' wallets, batch by batch, each in one database transaction."
    " A dry run rolls each back and leaves an observation of what it would have released.",
    tags=TAGS,
)
def apply_credits(
    context: dg.OpExecutionContext, cutoff: Cutoff, books: dg.ResourceParam[Books]
) -> Iterator[dg.Output[None]]:
    """Release all that is due by the cut-off."""
    source = source_of(context.run_id)
    with books.engine.begin() as connection:
        began = database_clock(connection)
    started = time.monotonic()
    try:
        with release_logged(load_settings().log, run_id=context.run_id):
            run = drain_matured(
                books.engine,
                due_by=cutoff.due_by,
                source=source,
                batch_limit=cutoff.batch_limit,
                workers=cutoff.workers,
                dry_run=cutoff.dry_run,
            )
    except BooksOutOfBalance as broken:
        refuse(context, str(broken))
    seconds = round(time.monotonic() - started, 3)
    with books.engine.begin() as connection:
        places = places_of(connection)
    summary = f"{counted(run.holds_released, 'payment')}, {amounts_text(run.amounts_minor, places)}"
    if cutoff.dry_run:
        tell(context, f"{WOULD_RELEASE} {summary}")
        context.log_event(
            dg.AssetObservation(
                RELEASED,
                metadata={
                    "dry_run": True,
                    "holds_a_real_run_would_release": run.holds_released,
                    **amount_metadata(run.amounts_minor, places),
                    "batches": run.batches,
                    "seconds": seconds,
                    "due_by": dg.MetadataValue.timestamp(cutoff.due_by),
                },
            )
        )
        return
    with books.engine.begin() as connection:
        lateness, rows = reports.released_from(connection, source=source, since=began)
        still_due = reports.due_holds(connection, due_by=cutoff.due_by)
        amounts_minor = dict.fromkeys(reports.currencies(connection), 0) | run.amounts_minor
    tell(context, f"released {summary}")
    yield dg.Output(
        None,
        metadata={
            "holds_released": run.holds_released,
            **amount_metadata(amounts_minor, places),
            "batches": run.batches,
            "seconds": seconds,
            **lateness_metadata(lateness),
            "still_due": still_due.holds,
            "due_by": dg.MetadataValue.timestamp(cutoff.due_by),
            BEGAN_AT: dg.MetadataValue.timestamp(began),
            **table_metadata("latest_released", rows, places),
        },
    )


@dg.graph_asset(
    name=RELEASED.to_python_identifier(),
    ins={"buffered_transactions": dg.AssetIn(key=BUFFERED, dagster_type=dg.Nothing)},
    description="Materializing this asset moves money, and no other asset does. Matured payments, credited to"
    " their payees' wallets: each is released exactly once, in"
    " one database transaction with its wallet, its EARNING line and the notification that it owes;"
    " overlapping and repeated runs are harmless, and what a run could not finish the next one takes."
    " A dry run is an observation, never a materialization.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "dagster"},
    tags=TAGS,
    code_version="2",
    metadata=RELEASED_COLUMNS,
)
def _released_transactions(buffered_transactions: None) -> None:
    """Select what has matured, then credit it."""
    # The type checker sees plain functions; inside a graph a call wires an op.
    return apply_credits(select_matured_transactions(buffered_transactions))  # type: ignore[no-any-return]


# `graph_asset` takes no freshness policy.
released_transactions: Final = _released_transactions.map_asset_specs(
    lambda spec: spec.replace_attributes(freshness_policy=FRESH_FOR)
)


@dg.asset(
    key=RUN_COUNTS,
    deps=[RELEASED, NOTIFICATIONS],
    description="Moves no money. What this run released, to plot over runs: holds, amounts, batches,"
    " seconds, lateness and what is still due. Zero is counted too, so a gap means that no run came this"
    " far.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"dagster"},
    tags=TAGS,
    code_version="2",
    freshness_policy=FRESH_FOR,
    metadata=RUN_COUNT_COLUMNS,
)
def release_counts(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    """Repeat what this run's `released_transactions` counted, and say outside that it came this far."""
    metadata = released_by_this_run(context)
    if metadata:
        settings = load_settings()
        with release_logged(settings.log, run_id=context.run_id):
            beat(settings.heartbeat_url)
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(
    key=SEALED,
    deps=[RELEASED],
    description="A chain of digests over all transactions, up to this run. Its latest digest stands in each"
    " materialization, apart from the books: `history_as_sealed` and `buffer-pipeline verify --anchor` prove"
    " by it that nothing was altered since. Sealing moves no money.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "dagster"},
    tags=TAGS,
    code_version="1",
    freshness_policy=FRESH_FOR,
    metadata=about(
        columns_of(tables.seal), {"line_digests": [(RELEASED, "transaction_id")]}, table=tables.seal
    ),
)
def sealed_history(books: dg.ResourceParam[Books]) -> dg.MaterializeResult[Any]:
    """Seal what has been written since the last time."""
    sealed = seal(books.engine)
    return dg.MaterializeResult(
        metadata={
            "transactions": sealed.lines,
            ANCHOR: "none" if sealed.anchor is None else str(sealed.anchor),
            "waits_for_another_transaction": sealed.waits,
        }
    )


def source_of(run_id: str) -> str:
    """Return what the books call a run, as the source of its batches."""
    return f"dagster run {run_id}"


def released_by_this_run(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
) -> Mapping[str, dg.MetadataValue[Any]]:
    """Return the figures that `released_transactions` reported in this run; none when it was not part of it.

    Read from the run's events rather than handed over as a value, so that notifications can be
    materialized by themselves without picking up the counts of some earlier run.
    """
    records = context.instance.get_records_for_run(
        context.run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
    ).records
    for record in records:
        materialization = record.asset_materialization
        if materialization is not None and materialization.asset_key == RELEASED:
            return {
                name: value
                for name, value in materialization.metadata.items()
                if not name.startswith("dagster/") and not isinstance(value, dg.TableMetadataValue)
            }
    return {}


def lateness_metadata(lateness: reports.Lateness) -> dict[str, Any]:
    """Return the seconds from release date to release, to plot: 0 where nothing was released."""
    return {
        "lateness_median_seconds": round(lateness.median_seconds or 0.0, 3),
        "lateness_max_seconds": round(lateness.max_seconds or 0.0, 3),
    }


def tell(context: dg.OpExecutionContext, outcome: str) -> None:
    """Write what the run did where a run is listed and on top of its page: into its tags."""
    context.instance.add_run_tags(context.run.run_id, {OUTCOME_TAG: outcome})


def refuse(context: dg.OpExecutionContext, message: str) -> NoReturn:
    """Fail the step and keep the run from being retried: trying again would change nothing."""
    do_not_retry(context)
    raise dg.Failure(message, allow_retries=False) from None


def do_not_retry(context: dg.OpExecutionContext | dg.AssetCheckExecutionContext) -> None:
    """Take back, for this run, the job's wish that a failed op be retried."""
    # `allow_retries=False` ends the retries of an op; those of a run go by its tags.
    context.instance.add_run_tags(context.run.run_id, {RETRY_FAILED_OPS_TAG: "false"})
