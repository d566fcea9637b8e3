"""`buffer-pipeline payout batch …`: batches of payouts."""

from typing import Annotated

import typer
from sqlalchemy import Connection

from buffer_pipeline.cli.not_marked import lines_to_look_at, summary_of, to_look_at
from buffer_pipeline.cli.options import By
from buffer_pipeline.cli.output import Output, iso
from buffer_pipeline.cli.session import one_snapshot, one_transaction
from buffer_pipeline.currencies import places_of
from buffer_pipeline.money import format_amount
from buffer_pipeline.notifications.sanitize import counted
from buffer_pipeline.payouts import (
    PayoutBatch,
    approve_payout_batch,
    cancel_payout_batch,
    make_payout_batch,
    payout_exports,
    payout_status_files,
    send_payout_batch,
)
from buffer_pipeline.reports.payouts import show_payout_batch

app = typer.Typer(rich_markup_mode="markdown")

Batch = Annotated[int, typer.Argument(help="The batch's id.")]


@app.command("batch make")
def make(
    context: typer.Context,
    currency: Annotated[str, typer.Option(help="ISO 4217, such as PHP.")],
    by: By,
    method: Annotated[
        str | None, typer.Option(help="`iban` or `token`; needed if payouts by both are requested.")
    ] = None,
) -> None:
    """Put what is requested in a currency into a batch.

    Left out are payouts of owners who are frozen or owe a debt, and those to an account that was set less
    than BUFFER_PAYOUT_DESTINATION_WAIT_HOURS ago.

    Example: `buffer-pipeline payout batch make --currency PHP --by finance-1`
    """
    with one_transaction() as (connection, settings, now):
        done = make_payout_batch(
            connection,
            currency=currency,
            method=None if method is None else method.upper(),
            by=by,
            policy=settings.payout_policy,
            now=now,
        )
        amount = _amount(connection, done)
    _answer(context.obj, done, amount, word="is made")


@app.command("batch approve")
def approve(context: typer.Context, batch: Batch, by: By) -> None:
    """Approve a batch that somebody else has made.

    Example: `buffer-pipeline payout batch approve 3 --by finance-2`
    """
    with one_transaction() as (connection, _, now):
        done = approve_payout_batch(connection, payout_batch_id=batch, by=by, now=now)
        amount = _amount(connection, done)
    _answer(context.obj, done, amount, word="was approved already" if done.replayed else "is approved")


@app.command("batch send")
def send(context: typer.Context, batch: Batch, by: By) -> None:
    """Mark an approved batch as sent; its owners are notified. From then on no payout of it can be cancelled.

    Example: `buffer-pipeline payout batch send 3 --by finance-1`
    """
    with one_transaction() as (connection, _, now):
        done = send_payout_batch(connection, payout_batch_id=batch, by=by, now=now)
        amount = _amount(connection, done)
    _answer(context.obj, done, amount, word="was sent already" if done.replayed else "is sent")


@app.command("batch cancel")
def cancel(
    context: typer.Context,
    batch: Batch,
    by: By,
    reason: Annotated[str, typer.Option(help="The reason; stored in the books.")] = "cancelled by hand",
) -> None:
    """Cancel a batch before it is sent: its payouts wait for the next one.

    Example: `buffer-pipeline payout batch cancel 3 --by finance-1 --reason "wrong day"`
    """
    with one_transaction() as (connection, _, now):
        done = cancel_payout_batch(connection, payout_batch_id=batch, by=by, reason=reason, now=now)
        amount = _amount(connection, done)
    _answer(context.obj, done, amount, word="was cancelled already" if done.replayed else "is cancelled")


@app.command("batch show")
def show(context: typer.Context, batch: Batch) -> None:
    """Show a batch: its state, its payouts, their sum, and the files that were written and imported for it.

    Of an imported file it names the lines that have marked nothing, which a person has to look at.

    Example: `buffer-pipeline payout batch show 3`
    """
    output: Output = context.obj
    with one_snapshot() as (connection, _, _now):
        found = show_payout_batch(connection, payout_batch_id=batch)
        exports = payout_exports(connection, payout_batch_id=batch)
        imports = payout_status_files(connection, payout_batch_id=batch)
        amount = format_amount(found["amount_minor"], places_of(connection)[found["currency"]])
    steps = [f"made by {found['made_by']}"]
    for name, word in (("approved_by", "approved"), ("sent_by", "sent"), ("cancelled_by", "cancelled")):
        if found[name] is not None:
            steps.append(f"{word} by {found[name]}")
    steps += [
        f"exported as {each.format} by {each.exported_by} at {iso(each.exported_at)}" for each in exports
    ]
    output.answer(
        {
            "batch_id": batch,
            "state": found["state"],
            "payouts": found["payouts"],
            "amount": amount,
            "exports": [
                {
                    "format": each.format,
                    "by": each.exported_by,
                    "at": iso(each.exported_at),
                    "sha256": each.digest.hex(),
                }
                for each in exports
            ],
            "status_files": [
                {
                    "by": each.imported_by,
                    "at": iso(each.imported_at),
                    "sha256": each.digest.hex(),
                    "paid": each.paid,
                    "returned": each.returned,
                    **to_look_at(each),
                }
                for each in imports
            ],
        },
        text=f"Batch {batch} is {found['state']}: {counted(found['payouts'], 'payout')}, {amount}"
        f" {found['currency']} by {found['method']}; {', '.join(steps)}.",
    )
    for each in imports:
        output.remark(f"status file of {iso(each.imported_at)} by {each.imported_by}: {summary_of(each)}")
        for line in lines_to_look_at(each):
            output.remark(line)


def _amount(connection: Connection, done: PayoutBatch) -> str:
    return format_amount(done.amount_minor, places_of(connection)[done.currency])


def _answer(output: Output, done: PayoutBatch, amount: str, *, word: str) -> None:
    output.answer(
        {
            "batch_id": done.payout_batch_id,
            "state": done.state,
            "payouts": done.payouts,
            "amount": amount,
        },
        text=f"Batch {done.payout_batch_id} {word}: {counted(done.payouts, 'payout')}, {amount}"
        f" {done.currency} by {done.method}.",
    )
