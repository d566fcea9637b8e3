"""`buffer-pipeline backjob …`: a client's requests and what became of them."""

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
from buffer_pipeline.cli.output import Output, present
from buffer_pipeline.cli.session import one_look, one_transaction
from buffer_pipeline.currencies import places_of
from buffer_pipeline.hold import BackjobState
from buffer_pipeline.reports import list_backjobs, list_holds

app = typer.Typer(help="Clients' requests to have work redone.")

BackjobId = Annotated[int, typer.Argument(help="The backjob's id.")]


@app.command("request")
def request(
    context: typer.Context,
    job: Annotated[str, typer.Option(help="The job to be redone.")],
    by: By,
    reason: Reason,
    payer: Annotated[str | None, typer.Option(help="Refuse unless the job's payer is this owner.")] = None,
    reference: Reference = None,
) -> None:
    """Ask for a backjob before the release date: it freezes the job's holds, and those that come later.

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
    """Reject: the holds go back into the buffer, BUFFER_COOLDOWN_HOURS longer.

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
        str | None, typer.Option(help="Refund only so much; the rest stays in the buffer.")
    ] = None,
    hold: Annotated[
        list[int] | None, typer.Option(help="Refund from this hold; may be repeated. From all without it.")
    ] = None,
    reference: Reference = None,
) -> None:
    """Approve: the held money goes back to the payer.

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
            hold_ids=hold or None,  # Typer has an empty list where there is none.
            reference=reference,
            now=now,
        )
        document = _document(connection, done)
    _answer(context.obj, document)


@app.command("withdraw")
def withdraw(
    context: typer.Context, backjob_id: BackjobId, by: By, reason: Reason, reference: Reference = None
) -> None:
    """Withdraw: the holds go back into the buffer, their dates unchanged.

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
        BackjobState | None, typer.Option(case_sensitive=False, help="Only in this state.")
    ] = None,
) -> None:
    """List backjobs, the oldest first.

    Example: `buffer-pipeline backjob list --state OPEN`
    """
    output: Output = context.obj
    with one_look() as (connection, _, _now):
        rows = list_backjobs(connection, state=state)
    output.table(
        present(rows),
        columns=("backjob_id", "job", "state", "requested_by", "reason", "requested_at", "holds"),
        empty="No such backjob.",
    )


def _document(connection: Connection, done: Backjob) -> dict[str, Any]:
    holds = [row for row in list_holds(connection, job=done.job) if row["hold_id"] in done.hold_ids]
    shown = ("hold_id", "state", "amount_minor", "refunded_minor", "left_minor", "currency", "release_date")
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
