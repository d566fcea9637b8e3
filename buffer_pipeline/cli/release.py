"""`buffer-pipeline release` and `release-now`."""

import time
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import typer
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.cli.interrupt import between_batches
from buffer_pipeline.cli.options import Reason
from buffer_pipeline.cli.output import Output, amounts_by_currency, iso, money
from buffer_pipeline.cli.session import books, one_transaction
from buffer_pipeline.crew import ReleaseRun
from buffer_pipeline.currencies import Places, places_of
from buffer_pipeline.database import database_clock, first_line
from buffer_pipeline.drain import WORKERS_MAX, drain_matured
from buffer_pipeline.history import seal
from buffer_pipeline.inputs import parse_as_of
from buffer_pipeline.logs import release_logged
from buffer_pipeline.money import format_amount
from buffer_pipeline.release import ReleaseBatch, release_early
from buffer_pipeline.reports import Rows, due_holds, holds_of_batch
from buffer_pipeline.texts import counted


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command("release")(release)
    app.command("release-now")(release_now)


def release(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run the real statements, then roll back.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="Release at most so many holds; all without it.")] = None,
    as_of: Annotated[
        str | None, typer.Option(help="Only what was due at this time (ISO 8601); now without it.")
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            help=f"Connections that release at the same time, 1 to {WORKERS_MAX}, each a share of the payees."
        ),
    ] = 1,
    verbose: Annotated[bool, typer.Option("--verbose", help="A line for each hold.")] = False,
) -> None:
    """Release all that is due. Safe to run again, and at the same time as another release.

    Ctrl-C or SIGTERM ends it behind the batch in hand: what is released stays released, the rest
    stays due, and it exits 130 or 143. A second one, or 15 seconds after SIGTERM, stops it at once:
    that batch is rolled back, unless its commit waits for a standby, when it may stand or not.

    Example: `buffer-pipeline release --dry-run --verbose`
    """
    output: Output = context.obj
    run_id = str(uuid.uuid4())
    with books() as (engine, settings), release_logged(settings.log, run_id=run_id):
        with engine.connect() as connection:
            now = database_clock(connection)
            due_by = parse_as_of(as_of, clock=now)
            due = due_holds(connection, due_by=due_by).holds if output.shows_progress else None
        output.remark(f"Starting payment release job at {iso(now)}" + (" (dry run)" if dry_run else ""))
        if due is not None and limit is not None:
            due = min(due, limit)
        with (
            output.progress("release", total=due, unit="holds") as advance,
            between_batches() as interruption,
        ):
            rows: dict[int | None, Rows] = {}
            places: dict[str, int] = {}

            def on_batch(connection: Connection, batch: ReleaseBatch) -> None:
                if not batch.amounts_minor.keys() <= places.keys():
                    places.update(places_of(connection))
                if verbose and batch.batch_id is not None:
                    # Read inside, since a dry run leaves nothing; said behind the commit.
                    rows[batch.batch_id] = holds_of_batch(connection, batch_id=batch.batch_id)

            def after_batch(batch: ReleaseBatch) -> None:
                advance(batch.holds_released)
                for row in rows.pop(batch.batch_id, ()):
                    amount = format_amount(row["amount_minor"], places[row["currency"]])
                    output.remark(
                        f"hold {row['hold_id']}: {amount} {row['currency']} to {row['payee']},"
                        f" job {row['job']}, due {iso(row['release_date'])}"
                    )

            began = time.perf_counter()
            run = drain_matured(
                engine,
                due_by=due_by,
                source="cli",
                limit=limit,
                dry_run=dry_run,
                workers=workers,
                stop=interruption.asked,
                on_batch=on_batch,
                after_batch=after_batch,
            )
            seconds = time.perf_counter() - began
            done = not dry_run and not run.interrupted
            anchor = _seal(engine, output, stop=interruption.asked) if done else None
    text = _summary(run, places, seconds=seconds)
    if output.as_json:
        output.remark(text)
    amounts = amounts_by_currency(run.amounts_minor, places)
    document = _document(iso(due_by), dry_run, run.holds_released, amounts, run.batches)
    output.answer({**document, "interrupted": run.interrupted, "anchor": anchor}, text=text)
    if done and settings.heartbeat_url is not None:
        from buffer_pipeline.delivery.heartbeat import beat

        with release_logged(settings.log, run_id=run_id):
            beat(settings.heartbeat_url)
    if run.interrupted:
        raise typer.Exit(interruption.exit_code)


def _seal(engine: Engine, output: Output, *, stop: Callable[[], bool]) -> str | None:
    """Seal what has been written and return what to verify it by."""
    try:
        sealed = seal(engine, stop=stop)
    # What is released is released, and the answer is to say so.
    except DBAPIError as error:
        output.remark(f"Not sealed, which the next release makes up for: {first_line(error)}")
        return None
    except KeyboardInterrupt:
        output.remark("Not all may be sealed, which the next release makes up for: interrupted")
        return None
    if sealed.waits:
        why = "interrupted" if stop() else "a transaction is open for long, or somebody else seals"
        output.remark(f"Not all is sealed, which the next release makes up for: {why}")
    elif sealed.lines:
        output.remark(f"Sealed {counted(sealed.lines, 'transaction')}; to verify by: {sealed.anchor}")
    return None if sealed.anchor is None else str(sealed.anchor)


def _summary(run: ReleaseRun, places: Places, *, seconds: float) -> str:
    if run.holds_released:
        verb = "Would release" if run.dry_run else "Released"
        text = (
            f"{verb} {counted(run.holds_released, 'payment')}, {money(run.amounts_minor, places)},"
            f" in {counted(run.batches, 'batch')}"
            f" ({seconds:.1f} s, {run.holds_released / seconds:,.0f} a second)."
        )
    else:
        text = "Nothing released." if run.interrupted else "No payments ready for release."
    if run.interrupted:
        text += "\nInterrupted: what is still due stays due, and the next release takes it."
    return text


def release_now(
    context: typer.Context,
    by: Annotated[str, typer.Option(help="Who asks: the payer, or an admin with --admin.")],
    reason: Reason,
    hold: Annotated[int | None, typer.Option(help="One hold.")] = None,
    job: Annotated[str | None, typer.Option(help="All unsettled holds of a job.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="An admin asks.")] = False,
) -> None:
    """Release before the release date: the payer gives up the right to a backjob by it.

    Example: `buffer-pipeline release-now --hold 41 --by client-3 --reason "well done"`
    """
    if (hold is None) == (job is None):
        raise typer.BadParameter("give --hold or --job, one of them")
    output: Output = context.obj
    with one_transaction() as (connection, _, now):
        batch = release_early(
            connection, hold_id=hold, job=job, by=by, reason=reason, as_admin=admin, now=now
        )
        places = places_of(connection)
    amounts = amounts_by_currency(batch.amounts_minor, places)
    output.answer(
        _document(iso(now), False, batch.holds_released, amounts, 1),
        text=f"Released {counted(batch.holds_released, 'payment')}, {money(batch.amounts_minor, places)}.",
    )


def _document(
    as_of: str, dry_run: bool, holds_released: int, amounts: dict[str, str], batches: int
) -> dict[str, Any]:
    return {
        "as_of": as_of,
        "dry_run": dry_run,
        "holds_released": holds_released,
        "amounts": amounts,
        "batches": batches,
    }
