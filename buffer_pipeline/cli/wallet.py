"""`buffer-pipeline wallet …`: what an owner has, and money in and out."""

from typing import Annotated, Final

import typer

from buffer_pipeline.cli.output import Output, present
from buffer_pipeline.cli.session import one_look, one_transaction
from buffer_pipeline.currencies import places_of
from buffer_pipeline.inputs import parse_as_of
from buffer_pipeline.money import format_amount
from buffer_pipeline.reports import list_wallets, wallet_statement
from buffer_pipeline.wallet import Movement
from buffer_pipeline.wallet import deposit as deposit_verb
from buffer_pipeline.wallet import withdraw as withdraw_verb

app = typer.Typer(help="Owners' money.")

Owner = Annotated[str, typer.Argument(help="The platform's id of the owner.")]
Amount = Annotated[str, typer.Option(help="In the currency's major unit, such as 1250.50.")]
Currency = Annotated[str, typer.Option(help="ISO 4217, such as PHP.")]
_CHANGES: Final = ("change", "pending_change")
"""What a transaction did to the balance, and to the pending earnings."""

Reference = Annotated[str, typer.Option(help="Idempotency key of the movement.")]


@app.command("show")
def show(context: typer.Context, owner: Owner) -> None:
    """Show an owner's balance and pending earnings, a line a currency.

    Example: `buffer-pipeline wallet show worker-17`
    """
    output: Output = context.obj
    with one_look() as (connection, _, _now):
        rows, places = list_wallets(connection, owner=owner), places_of(connection)
    output.table(
        present(rows, places), columns=("owner", "currency", "balance", "pending_earnings"), empty=""
    )


@app.command("statement")
def statement(
    context: typer.Context,
    owner: Owner,
    as_of: Annotated[str | None, typer.Option(help="Up to this time (ISO 8601).")] = None,
) -> None:
    """List an owner's transactions, the oldest first, with the balance after each.

    Each amount is signed as this wallet has it: what it did to the balance, and to the pending earnings. A
    release adds to the one what it takes from the other. In JSON `amount` is the first that changed.

    Example: `buffer-pipeline wallet statement worker-17 --as-of 2026-11-01T00:00Z`
    """
    output: Output = context.obj
    with one_look() as (connection, _, now):
        until = None if as_of is None else parse_as_of(as_of, clock=now)
        rows, places = wallet_statement(connection, owner=owner, as_of=until), places_of(connection)
    for row in rows:
        row["amount_minor"] = row["change_minor"] or row["pending_change_minor"]
    shown = present(rows, places)
    if not output.as_json:
        for row, found in zip(shown, rows, strict=True):
            for name in _CHANGES:
                change_minor = found[f"{name}_minor"]
                # In JSON a positive number has no sign.
                row[name] = f"+{row[name]}" if change_minor > 0 else row[name] if change_minor else ""
    output.table(
        shown,
        headings={"change": "balance change"},
        columns=(
            "transaction_id",
            "recorded_at",
            "type",
            *_CHANGES,
            "currency",
            "balance_after",
            "pending_earnings_after",
            "job",
            "title",
        ),
        empty="No transactions.",
    )


@app.command("deposit")
def deposit(
    context: typer.Context, owner: Owner, amount: Amount, currency: Currency, reference: Reference
) -> None:
    """Add money from outside to a balance. The same reference again changes nothing.

    Example: `buffer-pipeline wallet deposit client-3 --amount 5000 --currency PHP --reference top-up-9`
    """
    with one_transaction() as (connection, _, now):
        done = deposit_verb(
            connection, owner=owner, amount=amount, currency=currency, reference=reference, now=now
        )
        balance = format_amount(done.balance_minor, places_of(connection)[currency])
    _answer(context.obj, done, balance, currency)


@app.command("withdraw")
def withdraw(
    context: typer.Context, owner: Owner, amount: Amount, currency: Currency, reference: Reference
) -> None:
    """Take money out of a balance; pending earnings are out of reach.

    Example: `buffer-pipeline wallet withdraw worker-17 --amount 800 --currency PHP --reference payday-4`
    """
    with one_transaction() as (connection, _, now):
        done = withdraw_verb(
            connection, owner=owner, amount=amount, currency=currency, reference=reference, now=now
        )
        balance = format_amount(done.balance_minor, places_of(connection)[currency])
    _answer(context.obj, done, balance, currency)


def _answer(output: Output, done: Movement, balance: str, currency: str) -> None:
    word = "stood already" if done.replayed else "is written"
    output.answer(
        {"transaction_id": done.transaction_id, "replayed": done.replayed, "balance": balance},
        text=f"Transaction {done.transaction_id} {word}; the balance is {balance} {currency}.",
    )
