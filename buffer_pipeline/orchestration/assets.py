"""The assets of a release run. Each op opens a transaction, calls one verb and reports metadata."""

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NoReturn

import dagster as dg
from pydantic import Field

from buffer_pipeline import reports
from buffer_pipeline.database import database_clock
from buffer_pipeline.delivery.drain import drain_notifications
from buffer_pipeline.delivery.log import deliver_to_log
from buffer_pipeline.delivery.log import logger as notifications_logger
from buffer_pipeline.drain import BATCH_LIMIT, drain_matured
from buffer_pipeline.errors import BooksOutOfBalance, InvalidInput
from buffer_pipeline.inputs import parse_as_of
from buffer_pipeline.money import format_amount
from buffer_pipeline.orchestration.resources import Books
from buffer_pipeline.outbox import notifications_waiting

GROUP: Final = "payment_buffer"
OWNERS: Final = ["team:payments"]
KINDS: Final = {"postgres"}
TAGS: Final = {"domain": "payments"}

RELEASE_POOL: Final = "release"

RETRY_FAILED_OPS_TAG: Final = "dagster/retry_on_asset_or_op_failure"

BUFFERED_TRANSACTIONS: Final = dg.AssetSpec(
    "buffered_transactions",
    description="Payments that wait in the buffer. The platform writes them, through"
    " `add_pending_earnings`, in the transaction that completes its own job.",
    group_name=GROUP,
    owners=OWNERS,
    kinds=KINDS,
    tags=TAGS,
)

FROZEN_PAYMENTS: Final = dg.AssetSpec(
    "frozen_payments",
    description="Payments under a backjob, an admin's or a risk freeze. A frozen payment is never"
    " released, however late the clock; the sensor `stuck_frozen_payments` observes those that stay"
    " frozen for longer than BUFFER_STUCK_AFTER_HOURS.",
    deps=[BUFFERED_TRANSACTIONS],
    group_name=GROUP,
    owners=OWNERS,
    kinds=KINDS,
    tags=TAGS,
)


class ReleaseConfig(dg.Config):
    """What a release run takes; the defaults are what the schedule uses."""

    as_of: str | None = Field(
        default=None,
        description="Release what was due at this moment: ISO 8601 with a zone, such as"
        " 2026-03-02T12:00:00+00:00, not after the database's clock. Left out, it is that clock.",
    )
    batch_limit: int = Field(
        default=BATCH_LIMIT,
        ge=1,
        le=1_000_000,
        description="The most holds in one transaction. The run goes on batch by batch until"
        " nothing that was due at the cut-off is left.",
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
    dry_run: bool


@dg.op(
    ins={"buffered_transactions": dg.In(dg.Nothing)},
    description="Fixes the run's cut-off and reports what is due by it. Reads only.",
    tags=TAGS,
)
def select_matured_transactions(
    context: dg.OpExecutionContext, config: ReleaseConfig, books: dg.ResourceParam[Books]
) -> Cutoff:
    """Fix the cut-off and count what is due by it."""
    with books.engine.begin() as connection:
        try:
            due_by = parse_as_of(config.as_of, clock=database_clock(connection))
        except InvalidInput as refusal:
            refuse(context, str(refusal))
        due = reports.due_holds(connection, due_by=due_by)
    oldest = due.oldest_release_date
    context.add_output_metadata(
        {
            "due_by": dg.MetadataValue.timestamp(due_by),
            "due_holds": due.holds,
            **amount_metadata(due.amounts_minor),
            "oldest_release_date": "none" if oldest is None else dg.MetadataValue.timestamp(oldest),
            "dry_run": config.dry_run,
        }
    )
    return Cutoff(due_by=due_by, batch_limit=config.batch_limit, dry_run=config.dry_run)


@dg.op(
    out=dg.Out(dg.Nothing),
    pool=RELEASE_POOL,
    description="Credits the payees' wallets, batch by batch, each in one database transaction.",
    tags=TAGS,
)
def apply_credits(context: dg.OpExecutionContext, cutoff: Cutoff, books: dg.ResourceParam[Books]) -> None:
    """Release all that is due by the cut-off."""
    started = time.monotonic()
    try:
        run = drain_matured(
            books.engine,
            due_by=cutoff.due_by,
            source=f"dagster run {context.run_id}",
            batch_limit=cutoff.batch_limit,
            dry_run=cutoff.dry_run,
        )
    except BooksOutOfBalance as broken:
        refuse(context, str(broken))
    context.add_output_metadata(
        {
            "holds_released": run.holds_released,
            **amount_metadata(run.amounts_minor),
            "batches": run.batches,
            "dry_run": run.dry_run,
            "seconds": round(time.monotonic() - started, 3),
            "due_by": dg.MetadataValue.timestamp(cutoff.due_by),
        }
    )


@dg.graph_asset(
    ins={"buffered_transactions": dg.AssetIn(key=BUFFERED_TRANSACTIONS.key, dagster_type=dg.Nothing)},
    description="Matured payments, credited to their payees' wallets. Each is released exactly once, in"
    " one database transaction with its wallet, its EARNING line and the notification that it owes;"
    " overlapping and repeated runs are harmless, and what a run could not finish the next one takes.",
    group_name=GROUP,
    owners=OWNERS,
    kinds=KINDS,
    tags=TAGS,
    code_version="1",
)
def released_transactions(buffered_transactions: None) -> None:
    """Select what has matured, then credit it."""
    # The type checker sees plain functions; inside a graph a call wires an op.
    return apply_credits(select_matured_transactions(buffered_transactions))  # type: ignore[no-any-return]


@dg.multi_asset(
    name="emit_notifications",
    specs=[
        dg.AssetSpec(
            "release_notifications",
            deps=[released_transactions],
            description="What owners are told, delivered to the `log` channel: at least once, with a"
            " stable id to dedupe on. Waits for the checks of `released_transactions`; what is not"
            " delivered stays in the outbox and goes out with a later run.",
            group_name=GROUP,
            owners=OWNERS,
            kinds=KINDS,
            tags=TAGS,
            code_version="1",
        )
    ],
)
def release_notifications(
    context: dg.AssetExecutionContext, books: dg.ResourceParam[Books]
) -> dg.MaterializeResult[Any]:
    """Deliver what waits, unless this run was a dry one."""
    dry_run = bool(released_by_this_run(context).get("dry_run", False))
    delivered = 0
    if not dry_run:
        with _notifications_on_stderr():
            delivered = drain_notifications(books.engine, deliver_to_log)
    with books.engine.begin() as connection:
        waiting = notifications_waiting(connection)
    return dg.MaterializeResult(
        metadata={"delivered": delivered, "waiting": waiting, "channel": "log", "dry_run": dry_run}
    )


@dg.asset(
    deps=[released_transactions, release_notifications],
    description="How many payments this run released and how much, to plot over runs. Zero is counted"
    " too, so a gap means that no run came this far. A dry run counts zero.",
    group_name=GROUP,
    owners=OWNERS,
    kinds=KINDS,
    tags=TAGS,
    code_version="1",
)
def release_counts(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    """Report what this run's `released_transactions` counted."""
    released = released_by_this_run(context)
    dry_run = bool(released.get("dry_run", False))
    counted = released.get("holds_released", 0)
    amounts = (
        {} if dry_run else {name: value for name, value in released.items() if name.startswith("amount")}
    )
    return dg.MaterializeResult(
        metadata={
            "holds_released": 0 if dry_run else counted,
            **amounts,
            "dry_run": dry_run,
            **({"holds_a_real_run_would_release": counted} if dry_run else {}),
        }
    )


def released_by_this_run(context: dg.AssetExecutionContext) -> Mapping[str, Any]:
    """Return what `released_transactions` reported in this run; empty when it was not part of it.

    Read from the run's events rather than handed over as a value, so that notifications can be
    materialized by themselves without picking up the counts of some earlier run.
    """
    records = context.instance.get_records_for_run(
        context.run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
    ).records
    for record in records:
        materialization = record.asset_materialization
        if materialization is not None and materialization.asset_key == released_transactions.key:
            return {name: value.value for name, value in materialization.metadata.items()}
    return {}


def amount_metadata(amounts_minor: Mapping[str, int]) -> dict[str, Any]:
    """Return `amount_<CUR>` a currency for plots, and `amounts` as exact text.

    Dagster plots floats and ints only. These are for the eye and never read back as money: the
    exact amounts stand in the text and in the books.
    """
    exact = {
        currency: format_amount(amount_minor, currency)
        for currency, amount_minor in sorted(amounts_minor.items())
    }
    return {
        **{f"amount_{currency}": dg.MetadataValue.float(float(amount)) for currency, amount in exact.items()},
        "amounts": ", ".join(f"{amount} {currency}" for currency, amount in exact.items()) or "none",
    }


def refuse(context: dg.OpExecutionContext, message: str) -> NoReturn:
    """Fail the step and keep the run from being retried: trying again would change nothing."""
    do_not_retry(context)
    raise dg.Failure(message, allow_retries=False) from None


def do_not_retry(context: dg.OpExecutionContext | dg.AssetCheckExecutionContext) -> None:
    """Take back, for this run, the job's wish that a failed op be retried."""
    # `allow_retries=False` ends the retries of an op; those of a run go by its tags.
    context.instance.add_run_tags(context.run.run_id, {RETRY_FAILED_OPS_TAG: "false"})


@contextmanager
def _notifications_on_stderr() -> Iterator[None]:
    """Write the notifications' lines to stderr, which Dagster keeps as the step's compute log."""
    # Made here and not at import, since Dagster puts another stderr in place for the step.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = notifications_logger.level
    notifications_logger.addHandler(handler)
    notifications_logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        notifications_logger.setLevel(level)
        notifications_logger.removeHandler(handler)
