"""`buffer-pipeline wallet …`: the money of an owner, deposits and withdrawals."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Annotated, Final

import typer
from sqlalchemy import Connection

from buffer_pipeline.cli.output import Output, present, rows_of_page
from buffer_pipeline.cli.session import one_snapshot, one_transaction
from buffer_pipeline.currencies import places_of
from buffer_pipeline.errors import NotFound
from buffer_pipeline.inputs import parse_as_of
from buffer_pipeline.money import format_amount
from buffer_pipeline.reads import LIMIT_MAX, Wallet, every_item, list_wallets
from buffer_pipeline.reads import statement as read_statement
from buffer_pipeline.wallet import Movement
from buffer_pipeline.wallet import deposit as deposit_verb
from buffer_pipeline.wallet import withdraw as withdraw_verb

app = typer.Typer(rich_markup_mode="markdown")

Owner = Annotated[str, typer.Argument(help="The platform's id of the owner.")]
Amount = Annotated[str, typer.Option(help="In the currency's major unit, such as 1250.50.")]
Currency = Annotated[str, typer.Option(help="ISO 4217, such as PHP.")]
_CHANGES: Final = ("change", "pending_change")
"""The changes of a transaction to the balance and to the pending earnings."""

Reference = Annotated[str, typer.Option(help="Idempotency key of the movement.")]
By = Annotated[str | None, typer.Option(help="Who moves the money; stored in the audit trail.")]
Reason = Annotated[str | None, typer.Option(help="The reason, if --by is given; stored in the audit trail.")]


@app.command("show")
def show(context: typer.Context, owner: Owner) -> None:
    """Show an owner's balance, pending earnings and debts, one line per currency.

    Example: `buffer-pipeline wallet show worker-17`
    """
    output: Output = context.obj
    with one_snapshot() as (connection, _, _now):
        rows = rows_of_page(_wallets(connection, owner))
        places = places_of(connection)
    columns = ("owner", "currency", "balance", "pending_earnings", "debt")
    output.table(
        [{column: row[column] for column in columns} for row in present(rows, places)],
        columns=columns,
        empty="",
    )


def _wallets(connection: Connection, owner: str) -> Sequence[Wallet]:
    found = list_wallets(connection, owner=owner, oldest_first=True, limit=LIMIT_MAX).items
    if not found:
        raise NotFound(f"wallet of {owner!r}: does not exist", owner=owner)
    return sorted(found, key=attrgetter("currency"))


@app.command("statement")
def statement(
    context: typer.Context,
    owner: Owner,
    as_of: Annotated[str | None, typer.Option(help="Only transactions up to this time (ISO 8601).")] = None,
    currency: Annotated[str | None, typer.Option(help="Only the wallet in this currency.")] = None,
    newest: Annotated[bool, typer.Option("--newest", help="The newest first.")] = False,
) -> None:
    """List an owner's transactions, the oldest first, with the balance after each.

    There are two signed changes: to the balance and to the pending earnings. A release moves its amount from
    the pending earnings to the balance. In JSON `amount` is the change to the balance, or, if the balance did
    not change, to the pending earnings.

    Example: `buffer-pipeline wallet statement worker-17 --as-of 2026-11-01T00:00Z`
    """
    output: Output = context.obj
    with one_snapshot() as (connection, _, now):
        until = None if as_of is None else parse_as_of(as_of, clock=now)
        _wallets(connection, owner)
        rows = rows_of_page(
            every_item(
                lambda cursor: read_statement(
                    connection,
                    owner=owner,
                    currency=currency,
                    as_of=until,
                    oldest_first=not newest,
                    limit=LIMIT_MAX,
                    cursor=cursor,
                )
            )
        )
        places = places_of(connection)
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
            "kind",
            "job",
            "title",
        ),
        empty="No transactions.",
    )


@app.command("deposit")
def deposit(
    context: typer.Context,
    owner: Owner,
    amount: Amount,
    currency: Currency,
    reference: Reference,
    by: By = None,
    reason: Reason = None,
) -> None:
    """Add money from outside to a balance. To repeat it with the same reference changes nothing.

    Example: `buffer-pipeline wallet deposit client-3 --amount 5000 --currency PHP --reference top-up-9`
    """
    with one_transaction() as (connection, _, now):
        done = deposit_verb(
            connection,
            owner=owner,
            amount=amount,
            currency=currency,
            reference=reference,
            by=by,
            reason=reason,
            now=now,
        )
        balance = format_amount(done.balance_minor, places_of(connection)[currency])
    _answer(context.obj, done, balance, currency)


@app.command("withdraw")
def withdraw(
    context: typer.Context,
    owner: Owner,
    amount: Amount,
    currency: Currency,
    reference: Reference,
    by: By = None,
    reason: Reason = None,
) -> None:
    """Take money out of a balance; pending earnings cannot be withdrawn.

    Example: `buffer-pipeline wallet withdraw worker-17 --amount 800 --currency PHP --reference payday-4`
    """
    with one_transaction() as (connection, _, now):
        done = withdraw_verb(
            connection,
            owner=owner,
            amount=amount,
            currency=currency,
            reference=reference,
            by=by,
            reason=reason,
            now=now,
        )
        balance = format_amount(done.balance_minor, places_of(connection)[currency])
    _answer(context.obj, done, balance, currency)


def _answer(output: Output, done: Movement, balance: str, currency: str) -> None:
    word = "existed already" if done.replayed else "is written"
    output.answer(
        {"transaction_id": done.transaction_id, "replayed": done.replayed, "balance": balance},
        text=f"Transaction {done.transaction_id} {word}; the balance is {balance} {currency}.",
    )
