"""`buffer-pipeline backjob …`: clients' requests and the decisions on them."""

from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from buffer_pipeline.backjob import (
    Backjob,
    approve_backjob,
    reject_backjob,
    request_backjob,
    withdraw_backjob,
)
from buffer_pipeline.cli.options import By, Reason, Reference
from buffer_pipeline.cli.output import Output, present, rows_of_page
from buffer_pipeline.cli.session import one_snapshot, one_transaction
from buffer_pipeline.currencies import places_of
from buffer_pipeline.hold import BackjobState
from buffer_pipeline.reads import LIMIT_MAX, every_item, list_backjobs, list_holds

app = typer.Typer(rich_markup_mode="markdown")

BackjobId = Annotated[int, typer.Argument(help="The backjob's id.")]


@app.command("request")
def request(
    context: typer.Context,
    job: Annotated[str, typer.Option(help="The job to redo.")],
    by: By,
    reason: Reason,
    payer: Annotated[
        str | None, typer.Option(help="Refuse unless this owner is the payer of the job.")
    ] = None,
    reference: Reference = None,
) -> None:
    """Request a backjob before the release date: it freezes the holds of the job, and later ones.

    Example: `buffer-pipeline backjob request --job job-8 --by client-3 --payer client-3
    --reason "drips again" --reference complaint-7`
    """
    with one_transaction() as (connection, settings, now):
        done = request_backjob(
            connection,
            job=job,
            by=by,
            reason=reason,
            payer=payer,
            reference=reference,
            now=now,
            policy=settings.policy,
        )
        document = _document(connection, done)
    _answer(context.obj, document)


@app.command("reject")
def reject(
    context: typer.Context, backjob_id: BackjobId, by: By, reason: Reason, reference: Reference = None
) -> None:
    """Reject a backjob: its holds return to the buffer, BUFFER_COOLDOWN_HOURS longer.

    A hold whose rule has a cooldown of its own gets that instead.

    Example: `buffer-pipeline backjob reject 5 --by admin-1 --reason "photos show finished work"`
    """
    with one_transaction() as (connection, settings, now):
        done = reject_backjob(
            connection,
            backjob_id=backjob_id,
            by=by,
            reason=reason,
            reference=reference,
            now=now,
            policy=settings.policy,
        )
        document = _document(connection, done)
    _answer(context.obj, document)


@app.command("approve")
def approve(
    context: typer.Context,
    backjob_id: BackjobId,
    by: By,
    reason: Reason,
    amount: Annotated[
        str | None, typer.Option(help="Refund only this amount; the rest stays in the buffer.")
    ] = None,
    hold: Annotated[
        list[int] | None,
        typer.Option(help="Refund from this hold; can be given several times; default: all holds."),
    ] = None,
    reference: Reference = None,
) -> None:
    """Approve a backjob: the held money goes to the payer.

    A fee that its rule keeps is not refunded; it returns to the buffer.

    Example: `buffer-pipeline backjob approve 5 --by admin-1 --reason "agreed" --amount 400.00 --hold 41
    --hold 42 --reference decision-9`
    """
    with one_transaction() as (connection, _, now):
        done = approve_backjob(
            connection,
            backjob_id=backjob_id,
            by=by,
            reason=reason,
            amount=amount,
            hold_ids=hold or None,  # Typer passes an empty list if the option is not given.
            reference=reference,
            now=now,
        )
        document = _document(connection, done)
    _answer(context.obj, document)


@app.command("withdraw")
def withdraw(
    context: typer.Context, backjob_id: BackjobId, by: By, reason: Reason, reference: Reference = None
) -> None:
    """Withdraw a backjob: its holds return to the buffer with unchanged dates.

    Example: `buffer-pipeline backjob withdraw 5 --by client-3 --reason "settled between us"`
    """
    with one_transaction() as (connection, _, now):
        done = withdraw_backjob(
            connection, backjob_id=backjob_id, by=by, reason=reason, reference=reference, now=now
        )
        document = _document(connection, done)
    _answer(context.obj, document)


@app.command("list")
def list_(
    context: typer.Context,
    state: Annotated[
        BackjobState | None, typer.Option(case_sensitive=False, help="Only backjobs in this state.")
    ] = None,
    job: Annotated[str | None, typer.Option(help="Only backjobs of this job.")] = None,
    newest: Annotated[bool, typer.Option("--newest", help="The newest first.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, max=2**31, help="At most this number of backjobs.")
    ] = None,
) -> None:
    """List backjobs, the oldest first.

    Example: `buffer-pipeline backjob list --state OPEN`
    """
    output: Output = context.obj
    with one_snapshot() as (connection, _, _now):
        backjobs = every_item(
            lambda cursor: list_backjobs(
                connection,
                job=job,
                state=state,
                oldest_first=not newest,
                limit=min(limit or LIMIT_MAX, LIMIT_MAX),
                cursor=cursor,
            )
        )
        rows = rows_of_page(islice(backjobs, limit))
    for row in rows:
        row["holds"] = row.pop("hold_ids")
    output.table(
        present(rows),
        columns=("backjob_id", "job", "state", "requested_by", "reason", "requested_at", "holds"),
        empty="No backjobs found.",
    )


def _document(connection: Connection, done: Backjob) -> dict[str, Any]:
    holds = [
        asdict(hold)
        for hold in every_item(
            lambda cursor: list_holds(
                connection, job=done.job, oldest_first=True, limit=LIMIT_MAX, cursor=cursor
            )
        )
        if hold.hold_id in done.hold_ids
    ]
    amounts = ("amount_minor", "refunded_minor", "left_minor", "currency")
    shown = ("hold_id", "state", *amounts, "release_date", "metadata")
    return {
        "backjob_id": done.backjob_id,
        "job": done.job,
        "state": done.state,
        "replayed": done.replayed,
        "holds": present([{key: row[key] for key in shown} for row in holds], places_of(connection)),
    }


def _answer(output: Output, document: dict[str, Any]) -> None:
    if document["replayed"]:
        lines = ["Nothing changed: backjob {backjob_id} of {job} is {state}.".format(**document)]
    else:
        lines = ["Backjob {backjob_id} of {job}: {state}.".format(**document)]
    lines += [
        f"hold {row['hold_id']}: {row['state']}, {row['amount']} {row['currency']} held,"
        f" {row['refunded']} refunded, {row['left']} left, release date {row['release_date']}"
        for row in document["holds"]
    ]
    output.answer(document, text="\n".join(lines))
