"""`buffer-pipeline release` and `release-now`."""

import time
from typing import Annotated

import typer
from sqlalchemy import Connection

from buffer_pipeline.cli.output import Output, iso
from buffer_pipeline.cli.session import books, one_transaction
from buffer_pipeline.database import database_clock
from buffer_pipeline.drain import drain_matured
from buffer_pipeline.inputs import parse_as_of
from buffer_pipeline.money import format_amount
from buffer_pipeline.release import ReleaseBatch, release_early
from buffer_pipeline.reports import Rows, due_holds, holds_of_batch


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
    verbose: Annotated[bool, typer.Option("--verbose", help="A line for each hold.")] = False,
) -> None:
    """Release all that is due. Safe to run again, and at the same time as another release.

    Example: `buffer-pipeline release --dry-run --verbose`
    """
    output: Output = context.obj
    with books() as (engine, _):
        with engine.connect() as connection:
            now = database_clock(connection)
            due_by = parse_as_of(as_of, clock=now)
            due = due_holds(connection, due_by=due_by) if not output.as_json else None
        output.remark(f"Starting payment release job at {iso(now)}" + (" (dry run)" if dry_run else ""))
        with output.progress("release", total=due.holds if due else None) as advance:
            rows: Rows = []

            def on_batch(connection: Connection, batch: ReleaseBatch) -> None:
                if verbose and batch.batch_id is not None:
                    # Read inside, since a dry run leaves nothing; said behind the commit.
                    rows[:] = holds_of_batch(connection, batch_id=batch.batch_id)

            def after_batch(batch: ReleaseBatch) -> None:
                advance(batch.holds_released)
                for row in rows:
                    amount = format_amount(row["amount_minor"], row["currency"])
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
                on_batch=on_batch,
                after_batch=after_batch,
            )
            seconds = time.perf_counter() - began
    amounts = {code: format_amount(minor, code) for code, minor in sorted(run.amounts_minor.items())}
    if run.holds_released:
        verb = "Would release" if dry_run else "Released"
        money = ", ".join(f"{amount} {code}" for code, amount in amounts.items())
        text = (
            f"{verb} {_count(run.holds_released, 'payment')}, {money}, in {_count(run.batches, 'batch')}"
            f" ({seconds:.1f} s, {run.holds_released / seconds:,.0f} a second)."
        )
    else:
        text = "No payments ready for release."
    if output.as_json:
        output.remark(text)
    output.answer(_document(iso(due_by), dry_run, run.holds_released, amounts, run.batches), text=text)


def release_now(
    context: typer.Context,
    by: Annotated[str, typer.Option(help="Who asks: the payer, or an admin with --admin.")],
    reason: Annotated[str, typer.Option(help="Why; it stays in the books.")],
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
    amounts = {code: format_amount(minor, code) for code, minor in sorted(batch.amounts_minor.items())}
    money = ", ".join(f"{amount} {code}" for code, amount in amounts.items())
    output.answer(
        _document(iso(now), False, batch.holds_released, amounts, 1),
        text=f"Released {_count(batch.holds_released, 'payment')}, {money}.",
    )


def _count(number: int, what: str) -> str:
    plural = "es" if what.endswith("ch") else "s"
    return f"{number:,} {what}" + ("" if number == 1 else plural)


def _document(
    as_of: str, dry_run: bool, holds_released: int, amounts: dict[str, str], batches: int
) -> dict[str, object]:
    return {
        "as_of": as_of,
        "dry_run": dry_run,
        "holds_released": holds_released,
        "amounts": amounts,
        "batches": batches,
    }
