"""`buffer-pipeline release` and `release-now`."""

import json
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from hashlib import sha256
from typing import Annotated, Any, Final

import typer
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.audit.seals import seal
from buffer_pipeline.cli.interrupt import between_batches
from buffer_pipeline.cli.options import Reason, Reference
from buffer_pipeline.cli.output import Output, amounts_by_currency, iso, money
from buffer_pipeline.cli.session import books, one_transaction
from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import database_clock, first_line
from buffer_pipeline.inputs import parse_as_of
from buffer_pipeline.logs import release_logged
from buffer_pipeline.money import Places, format_amount
from buffer_pipeline.notifications.sanitize import counted
from buffer_pipeline.release import ReleaseBatch, release_early
from buffer_pipeline.release_run.run import WORKERS_MAX, release_all_due
from buffer_pipeline.release_run.worker_pool import ReleaseRun
from buffer_pipeline.reports.due import due_holds
from buffer_pipeline.reports.released import holds_of_batch
from buffer_pipeline.reports.rows import Rows

app: Final = typer.Typer(rich_markup_mode="markdown")


@app.command("release")
def release(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run the real statements, then roll them back.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(help="Release at most this number of holds; default: all.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option(help="Release only what was due at this time (ISO 8601); default: now.")
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            help=f"Connections that release at the same time, 1 to {WORKERS_MAX}; each takes some payees."
        ),
    ] = 1,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print a line for each hold.")] = False,
) -> None:
    """Release everything that is due. Safe to run again, and at the same time as another release.

    Ctrl-C or SIGTERM ends it after the current batch, with exit code 130 or 143: what is released stays
    released, and the rest stays due. A second signal, or 15 seconds after SIGTERM, stops it immediately. The
    current batch is then rolled back; if its commit waits for a standby, it may be committed or not.

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
                    # Read inside the transaction, because a dry run is rolled back; print after the commit.
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
            run = release_all_due(
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
    recovered = amounts_by_currency(run.recovered_minor, places)
    document = _document(iso(due_by), dry_run, run.holds_released, amounts, recovered, run.batches)
    output.answer({**document, "interrupted": run.interrupted, "anchor": anchor}, text=text)
    if done and settings.heartbeat_url is not None:
        from buffer_pipeline.monitoring.heartbeat import beat

        with release_logged(settings.log, run_id=run_id):
            beat(settings.heartbeat_url)
    if run.interrupted:
        raise typer.Exit(interruption.exit_code)


def _seal(engine: Engine, output: Output, *, stop: Callable[[], bool]) -> str | None:
    """Seal the new transactions, and return the anchor to verify them with."""
    try:
        sealed = seal(engine, stop=stop)
    # The release is committed, so an error here must not hide its answer.
    except DBAPIError as error:
        output.remark(f"Not sealed; the next release will seal it: {first_line(error)}")
        return None
    except KeyboardInterrupt:
        output.remark("Perhaps not everything is sealed; the next release will seal it: interrupted")
        return None
    if sealed.waits:
        why = "interrupted" if stop() else "a transaction has been open for long, or another process seals"
        output.remark(f"Not everything is sealed; the next release will seal it: {why}")
    elif sealed.lines:
        output.remark(f"Sealed {counted(sealed.lines, 'transaction')}; anchor: {sealed.anchor}")
    return None if sealed.anchor is None else str(sealed.anchor)


def _summary(run: ReleaseRun, places: Places, *, seconds: float) -> str:
    if run.holds_released:
        verb = "Would release" if run.dry_run else "Released"
        text = (
            f"{verb} {counted(run.holds_released, 'payment')}, {money(run.amounts_minor, places)},"
            f" in {counted(run.batches, 'batch')}"
            f" ({seconds:.1f} s, {run.holds_released / seconds:,.0f} per second)."
        )
        if run.recovered_minor:
            text += f" {_recovered(run.recovered_minor, places)}"
    else:
        text = "Nothing released." if run.interrupted else "No payments ready for release."
    if run.interrupted:
        text += "\nInterrupted: the rest is still due, and the next release takes it."
    return text


@app.command("release-now")
def release_now(
    context: typer.Context,
    by: Annotated[str, typer.Option(help="Who asks: the payer, or an admin with --admin.")],
    reason: Reason,
    hold: Annotated[int | None, typer.Option(help="The id of one hold.")] = None,
    job: Annotated[str | None, typer.Option(help="A job: all its unsettled holds.")] = None,
    amount: Annotated[
        str | None,
        typer.Option(help="A part of the hold, such as 250.50; the rest waits on."),
    ] = None,
    reference: Reference = None,
    admin: Annotated[bool, typer.Option("--admin", help="The request comes from an admin.")] = False,
) -> None:
    """Release a hold, a part of it, or a job before the release date.

    A payer who releases all of a hold gives up the right to a backjob.

    For an --amount without a --reference, the command makes the reference: a digest of the hold, the amount,
    --by and --reason. It prints it. The same command again releases nothing more. To release the same amount
    once more, give a --reference.

    Example: `buffer-pipeline release-now --hold 41 --by client-3 --reason "well done"` or
    `buffer-pipeline release-now --hold 41 --amount 250.50 --reference half-41 --by client-3
    --reason "half is done"`
    """
    if (hold is None) == (job is None):
        raise typer.BadParameter("give either --hold or --job")
    output: Output = context.obj
    made = None
    if reference is None and amount is not None and hold is not None:
        reference = made = _reference_of_part(hold, amount, by=by, reason=reason)
    with one_transaction() as (connection, settings, now):
        batch = release_early(
            connection,
            hold_id=hold,
            job=job,
            amount=amount,
            reference=reference,
            by=by,
            reason=reason,
            as_admin=admin,
            now=now,
            policy=settings.policy,
        )
        places = places_of(connection)
    amounts = amounts_by_currency(batch.amounts_minor, places)
    left = amounts_by_currency(batch.left_minor, places)
    what = counted(batch.holds_released, "payment")
    if batch.parts_released:
        what = f"a part of hold {hold}"
    again = " before, by the same reference" if batch.replayed else ""
    recovered = amounts_by_currency(batch.recovered_minor, places)
    held = f" {money(batch.left_minor, places)} is still held." if left else ""
    if recovered:
        held += f" {_recovered(batch.recovered_minor, places)}"
    output.answer(
        {
            **_document(iso(now), False, batch.holds_released, amounts, recovered, 1),
            "parts_released": batch.parts_released,
            "left": left,
            "replayed": batch.replayed,
            "reference": reference,
        },
        text=f"Released {what}, {money(batch.amounts_minor, places)}{again}.{held}"
        + (f" Reference: {made}." if made else "")
        + (" To release the same amount once more, give --reference." if made and batch.replayed else ""),
    )


def _recovered(recovered_minor: dict[str, int], places: Places) -> str:
    return f"Of this, {money(recovered_minor, places)} has paid debts of the payees."


def _reference_of_part(hold: int, amount: str, *, by: str, reason: str) -> str:
    """Return the same reference for the same hold, amount, person and reason."""
    # 250.5 and 250.50 are the same amount. What is not a number is refused by the verb.
    with suppress(ArithmeticError):
        amount = str(Decimal(amount).normalize())
    asked = json.dumps([hold, amount, by, reason])
    return f"release-now-{sha256(asked.encode()).hexdigest()[:32]}"


def _document(
    as_of: str,
    dry_run: bool,
    holds_released: int,
    amounts: dict[str, str],
    recovered: dict[str, str],
    batches: int,
) -> dict[str, Any]:
    return {
        "as_of": as_of,
        "dry_run": dry_run,
        "holds_released": holds_released,
        "amounts": amounts,
        "recovered": recovered,
        "batches": batches,
    }
