"""The assets of a release run. Each op opens a transaction, calls one verb and reports metadata."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn

import dagster as dg
from pydantic import Field

from buffer_pipeline import tables
from buffer_pipeline.audit.seals import seal
from buffer_pipeline.currencies import places_of
from buffer_pipeline.errors import BooksOutOfBalance, InvalidInput
from buffer_pipeline.inputs import parse_as_of
from buffer_pipeline.logs import release_logged
from buffer_pipeline.notifications.sanitize import counted
from buffer_pipeline.orchestration.lineage import (
    BUFFERED,
    GROUP,
    OWNERS,
    RELEASED,
    RELEASED_COLUMNS,
    SEALED,
    TAGS,
    about,
    columns_of,
)
from buffer_pipeline.orchestration.metadata import amount_metadata, amounts_text, table_metadata
from buffer_pipeline.orchestration.resources import Books, Clock
from buffer_pipeline.release_run.batch_size import BATCH_LIMIT
from buffer_pipeline.release_run.run import WORKERS_MAX, release_all_due
from buffer_pipeline.reports.due import due_holds
from buffer_pipeline.reports.released import Lateness, released_from
from buffer_pipeline.reports.totals import currencies
from buffer_pipeline.settings import Settings

RELEASE_POOL: Final = "release"

NOW: Final = "now"
"""The value of `as_of` for the clock of the books' database at the start of the run."""

OUTCOME_TAG: Final = "buffer/outcome"
WOULD_RELEASE: Final = "would release"
"""The beginning of the outcome of a dry run."""

RETRY_FAILED_OPS_TAG: Final = "dagster/retry_on_asset_or_op_failure"

ANCHOR: Final = "anchor"
"""In the metadata of a materialization: the last seal, with which the history can be verified."""

BEGAN_AT: Final = "began_at"
"""In the metadata of a materialization: the clock of the database before the first batch of the run."""

FRESH_FOR: Final = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(minutes=65), fail_window=timedelta(minutes=75)
)
"""Late 75 minutes after the latest materialization: a quarter past an hour that was missed."""


class ReleaseConfig(dg.Config):
    """The configuration of a release run. The schedule uses the defaults."""

    as_of: str | None = Field(
        # Not None, because the Launchpad shows only defaults that are values.
        default=NOW,
        description="Release what was due at this time: `now`, which is the clock of the database, or a time"
        " in ISO 8601 with a time zone, such as 2026-03-02T12:00:00+00:00, not after that clock.",
    )
    batch_limit: int = Field(
        default=BATCH_LIMIT,
        ge=1,
        le=1_000_000,
        description="The maximum number of holds in one transaction. A batch is smaller if its locks would"
        " last for more than a quarter of a second. The run continues batch by batch until nothing that was"
        " due at the cut-off is left.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=WORKERS_MAX,
        description="How many connections release at the same time, each for a share of the payees.",
    )
    dry_run: bool = Field(
        default=False,
        description="Run the real statements and roll them back: no money moves and nobody is notified.",
    )


@dataclass(frozen=True, kw_only=True)
class Cutoff:
    """What the first op passes to the second: never rows."""

    due_by: datetime
    batch_limit: int
    workers: int
    dry_run: bool


@dg.op(
    ins={"buffered_transactions": dg.In(dg.Nothing)},
    description="Sets the cut-off of the run and reports what is due by it. Only reads; moves no money.",
    tags=TAGS,
)
def select_matured_transactions(
    context: dg.OpExecutionContext,
    config: ReleaseConfig,
    books: dg.ResourceParam[Books],
    clock: dg.ResourceParam[Clock],
) -> Cutoff:
    """Set the cut-off and count what is due by it."""
    with books.engine.begin() as connection:
        try:
            as_of = None if config.as_of == NOW else config.as_of
            due_by = parse_as_of(as_of, clock=clock.books(connection))
        except InvalidInput as refusal:
            refuse(context, str(refusal))
        due = due_holds(connection, due_by=due_by)
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
    # A dry run yields no output, so nothing is materialized and the following steps are skipped.
    out=dg.Out(dg.Nothing, is_required=False),
    pool=RELEASE_POOL,
    description="Moves money: credits the wallets of the payees, batch by batch, each batch in one database"
    " transaction. A dry run rolls each batch back and records an observation: what it would have released.",
    tags=TAGS,
)
def apply_credits(
    context: dg.OpExecutionContext,
    cutoff: Cutoff,
    books: dg.ResourceParam[Books],
    clock: dg.ResourceParam[Clock],
    settings: dg.ResourceParam[Settings],
) -> Iterator[dg.Output[None]]:
    """Release all that is due by the cut-off."""
    source = source_of(context.run_id)
    with books.engine.begin() as connection:
        began = clock.books(connection)
    started = time.monotonic()
    try:
        with release_logged(settings.log, run_id=context.run_id):
            run = release_all_due(
                books.engine,
                due_by=cutoff.due_by,
                source=source,
                batch_limit=cutoff.batch_limit,
                workers=cutoff.workers,
                dry_run=cutoff.dry_run,
                clock=clock.writer,
            )
    except BooksOutOfBalance as broken:
        refuse(context, str(broken))
    seconds = round(time.monotonic() - started, 3)
    with books.engine.begin() as connection:
        places = places_of(connection)
    summary = f"{counted(run.holds_released, 'payment')}, {amounts_text(run.amounts_minor, places)}"
    if cutoff.dry_run:
        show_outcome(context, f"{WOULD_RELEASE} {summary}")
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
        lateness, rows = released_from(connection, source=source, since=began)
        still_due = due_holds(connection, due_by=cutoff.due_by)
        amounts_minor = dict.fromkeys(currencies(connection), 0) | run.amounts_minor
    show_outcome(context, f"released {summary}")
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
    description="Materializing this asset moves money. Matured payments, credited to"
    " the wallets of their payees. Each payment is released exactly once, in one database transaction with"
    " its wallet, its EARNING line and its notification. Overlapping and repeated runs are harmless. What a"
    " run could not finish, the next run takes. A dry run is an observation, not a materialization.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres", "dagster"},
    tags=TAGS,
    code_version="2",
    metadata=RELEASED_COLUMNS,
)
def _released_transactions(buffered_transactions: None) -> None:
    """Set the cut-off, then credit what is due by it."""
    # The type checker sees plain functions; inside a graph a call wires an op.
    return apply_credits(select_matured_transactions(buffered_transactions))  # type: ignore[no-any-return]


# `graph_asset` takes no freshness policy.
released_transactions: Final = _released_transactions.map_asset_specs(
    lambda spec: spec.replace_attributes(freshness_policy=FRESH_FOR)
)


@dg.asset(
    key=SEALED,
    deps=[RELEASED],
    description="A chain of digests over all transactions, up to this run. Each materialization stores its"
    " latest digest outside the books. `history_as_sealed` and `buffer-pipeline verify --anchor` use it to"
    " prove that nothing was altered since. Sealing moves no money.",
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
    """Seal the transactions that were written since the last seal."""
    sealed = seal(books.engine)
    return dg.MaterializeResult(
        metadata={
            "transactions": sealed.lines,
            ANCHOR: "none" if sealed.anchor is None else str(sealed.anchor),
            "waits_for_another_transaction": sealed.waits,
        }
    )


def source_of(run_id: str) -> str:
    """Return the source that the books store with the batches of a run."""
    return f"dagster run {run_id}"


def released_by_this_run(
    context: dg.OpExecutionContext | dg.AssetCheckExecutionContext,
) -> Mapping[str, dg.MetadataValue[Any]]:
    """Return the figures that `released_transactions` reported in this run; none if it is not part of it.

    They are read from the events of the run and not passed as a value, so that an asset that is materialized
    alone does not get the figures of an earlier run.
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


def lateness_metadata(lateness: Lateness) -> dict[str, Any]:
    """Return the seconds from release date to release, for plots: 0 if nothing was released."""
    return {
        "lateness_median_seconds": round(lateness.median_seconds or 0.0, 3),
        "lateness_max_seconds": round(lateness.max_seconds or 0.0, 3),
    }


def show_outcome(context: dg.OpExecutionContext, outcome: str) -> None:
    """Write what the run did into its tags, which the list of runs and the page of the run show."""
    context.instance.add_run_tags(context.run.run_id, {OUTCOME_TAG: outcome})


def refuse(context: dg.OpExecutionContext | dg.AssetExecutionContext, message: str) -> NoReturn:
    """Fail the step without a retry of the run, because a retry would change nothing."""
    do_not_retry(context)
    raise dg.Failure(message, allow_retries=False) from None


def do_not_retry(
    context: dg.OpExecutionContext | dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
) -> None:
    """Turn off the retry of this run after a failed op."""
    # `allow_retries=False` ends only the retries of an op. The retries of a run depend on its tags.
    context.instance.add_run_tags(context.run.run_id, {RETRY_FAILED_OPS_TAG: "false"})
