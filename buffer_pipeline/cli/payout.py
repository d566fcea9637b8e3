"""`buffer-pipeline payout …`: payouts, the destinations they go to, and owners' schedules."""

from dataclasses import asdict
from enum import StrEnum
from itertools import islice
from typing import Annotated, Final

import typer

from buffer_pipeline.cli import payout_batch, payout_files, payout_schedule
from buffer_pipeline.cli.options import By, Reason
from buffer_pipeline.cli.output import Output, present, rows_of_page
from buffer_pipeline.cli.session import one_snapshot, one_transaction
from buffer_pipeline.currencies import places_of
from buffer_pipeline.money import format_amount
from buffer_pipeline.payouts import (
    Destination,
    Payout,
    PayoutState,
    cancel_payout,
    request_payout,
    set_destination,
    show_destination,
)
from buffer_pipeline.reads import LIMIT_MAX, every_item, list_payouts

app = typer.Typer(rich_markup_mode="markdown")
for each in (payout_schedule, payout_batch, payout_files):
    app.registered_commands += each.app.registered_commands

Owner = Annotated[str, typer.Argument(help="The platform's id of the owner.")]
LIST_LIMIT: Final = 100
LIST_LIMIT_MAX: Final = 10_000


class Method(StrEnum):
    """How a destination is paid."""

    IBAN = "iban"
    TOKEN = "token"  # noqa: S105 - a kind of destination, not a password


@app.command("request")
def request(
    context: typer.Context,
    owner: Owner,
    currency: Annotated[str, typer.Option(help="ISO 4217, such as PHP.")],
    key: Annotated[str, typer.Option(help="Idempotency key of the payout.")],
    amount: Annotated[str | None, typer.Option(help="In the currency's major unit, such as 1250.50.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of the balance.")] = False,
    by: Annotated[str | None, typer.Option(help="Who asks; by default the owner.")] = None,
    override: Annotated[
        bool,
        typer.Option(
            "--override", help="As an admin: also if the owner is frozen or in debt, or the account new."
        ),
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why, with --override; stored in the books.")] = None,
) -> None:
    """Take an amount, or all of a balance, out of it for a payout.

    To repeat it with the same key changes nothing.

    Example: `buffer-pipeline payout request worker-17 --amount 800 --currency PHP --key payday-4`
    """
    with one_transaction() as (connection, settings, now):
        done = request_payout(
            connection,
            owner=owner,
            currency=currency,
            by=by or owner,
            reference=key,
            amount=amount,
            everything=everything,
            override=override,
            reason=reason,
            policy=settings.payout_policy,
            now=now,
        )
        shown = format_amount(done.amount_minor, places_of(connection)[currency])
    _answer(
        context.obj,
        done,
        shown,
        word=f"was requested before, and is {done.state}" if done.replayed else "is requested",
    )


@app.command("cancel")
def cancel(
    context: typer.Context,
    payout_id: Annotated[int, typer.Argument(help="The payout's id.")],
    by: By,
    reason: Reason,
) -> None:
    """Cancel a payout before it is sent: its money is back in the balance.

    Example: `buffer-pipeline payout cancel 6 --by admin-1 --reason "the owner asked"`
    """
    with one_transaction() as (connection, _, now):
        done = cancel_payout(connection, payout_id=payout_id, by=by, reason=reason, now=now)
        shown = format_amount(done.amount_minor, places_of(connection)[done.currency])
    _answer(context.obj, done, shown, word="was cancelled already" if done.replayed else "is cancelled")


@app.command("list")
def list_(
    context: typer.Context,
    owner: Annotated[str | None, typer.Option(help="Only of this owner.")] = None,
    state: Annotated[
        PayoutState | None, typer.Option(case_sensitive=False, help="Only in this state.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Only of this batch.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=LIST_LIMIT_MAX, help="At most so many.")] = LIST_LIMIT,
) -> None:
    """List payouts, the newest first. Accounts are masked.

    Example: `buffer-pipeline payout list --state RETURNED`
    """
    output: Output = context.obj
    with one_snapshot() as (connection, _, _now):
        payouts = every_item(
            lambda cursor: list_payouts(
                connection,
                owner=owner,
                state=state,
                payout_batch_id=batch,
                limit=min(limit, LIMIT_MAX),
                cursor=cursor,
            )
        )
        rows = rows_of_page(islice(payouts, limit))
        places = places_of(connection)
    shown = [
        {("batch_id" if name == "payout_batch_id" else name): value for name, value in row.items()}
        for row in rows
    ]
    output.table(
        present(shown, places),
        columns=("payout_id", "owner", "amount", "currency", "state", "batch_id", "account", "return_reason"),
        empty="No payouts.",
    )


@app.command("destination set")
def set_(
    context: typer.Context,
    owner: Owner,
    method: Annotated[
        Method, typer.Option(case_sensitive=False, help="A bank account, or a provider's token.")
    ],
    account: Annotated[str, typer.Option(help="The IBAN or the token; shown masked from now on.")],
    by: By,
    reason: Reason,
    holder_name: Annotated[
        str | None, typer.Option(help="The name on the account; an IBAN needs it, as banks compare it.")
    ] = None,
) -> None:
    """Set where an owner's payouts go from now on. New payouts wait until the account is old enough.

    Example: `buffer-pipeline payout destination set worker-17 --method iban --account DE89370400440532013000
    --holder-name "shop north" --by admin-1 --reason "new bank"`
    """
    with one_transaction() as (connection, _, now):
        done = set_destination(
            connection,
            owner=owner,
            method=method.upper(),
            account=account,
            holder_name=holder_name,
            by=by,
            reason=reason,
            now=now,
        )
    _show(context.obj, done)


@app.command("destination show")
def show(context: typer.Context, owner: Owner) -> None:
    """Show where an owner's payouts go, the account masked.

    Example: `buffer-pipeline payout destination show worker-17`
    """
    with one_snapshot() as (connection, _, _now):
        found = show_destination(connection, owner=owner)
    _show(context.obj, found)


def _show(output: Output, destination: Destination) -> None:
    document = present(asdict(destination))
    name = "" if destination.holder_name is None else f" of {destination.holder_name}"
    output.answer(
        document,
        text=f"Payouts of {destination.owner} go to {destination.method} {destination.account}{name}, version"
        f" {destination.version}, set by {destination.set_by} at {document['set_at']}: {destination.reason}",
    )


def _answer(output: Output, done: Payout, amount: str, *, word: str) -> None:
    output.answer(
        {"payout_id": done.payout_id, "state": done.state, "amount": amount},
        text=f"Payout {done.payout_id} of {amount} {done.currency} to {done.owner} {word}.",
    )
