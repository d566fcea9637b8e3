"""`buffer-pipeline debt …`: what owners owe after money was taken back."""

from typing import Annotated, Final

import typer

from buffer_pipeline.cli.options import By, Reason
from buffer_pipeline.cli.output import Output, amounts_by_currency, money, present, rows_of_page
from buffer_pipeline.cli.session import one_snapshot, one_transaction
from buffer_pipeline.currencies import places_of
from buffer_pipeline.debts import forgive_debt, recover_debts
from buffer_pipeline.money import format_amount
from buffer_pipeline.reads import LIMIT_MAX, every_item, list_debts

app = typer.Typer(rich_markup_mode="markdown")

_DEBT_COLUMNS: Final = (
    "debt_id",
    "owner",
    "creditor",
    "currency",
    "amount",
    "outstanding",
    "opened_at",
)

Key = Annotated[str | None, typer.Option(help="Idempotency key.")]


@app.command("list")
def list_(
    context: typer.Context,
    owner: Annotated[str | None, typer.Option(help="Only what this owner owes.")] = None,
    open_only: Annotated[
        bool, typer.Option("--open", help="Only debts of which something is outstanding.")
    ] = False,
) -> None:
    """List debts, the newest first: who owes whom, how much at first, and how much is outstanding.

    The creditor `bank` has taken the money already.

    Example: `buffer-pipeline debt list --owner worker-17`
    """
    output: Output = context.obj
    with one_snapshot() as (connection, _, _now):
        found = rows_of_page(
            every_item(
                lambda cursor: list_debts(
                    connection, owner=owner, only_open=open_only, limit=LIMIT_MAX, cursor=cursor
                )
            )
        )
        places = places_of(connection)
    rows = present([{**row, "creditor": row["creditor"] or "bank"} for row in found], places)
    output.table(
        [{column: row[column] for column in _DEBT_COLUMNS} for row in rows],
        columns=_DEBT_COLUMNS,
        empty="No debts.",
    )


@app.command("forgive")
def forgive(
    context: typer.Context,
    debt_id: Annotated[int, typer.Argument(help="The id of the debt, as `debt list` shows it.")],
    by: By,
    reason: Reason,
    key: Key = None,
) -> None:
    """Write off what is outstanding of a debt, as an admin: its creditor gets it from the account LOSS.

    Example: `buffer-pipeline debt forgive 3 --by admin-1 --reason "cannot pay"`
    """
    output: Output = context.obj
    with one_transaction() as (connection, _, now):
        done = forgive_debt(connection, debt_id=debt_id, by=by, reason=reason, reference=key, now=now)
        amount = format_amount(done.amount_minor, places_of(connection)[done.currency])
    word = "was forgiven before" if done.replayed else "is forgiven"
    output.answer(
        {"debt_id": done.debt_id, "owner": done.owner, "currency": done.currency, "amount": amount},
        text=f"Debt {done.debt_id} of {done.owner} {word}: {amount} {done.currency}.",
    )


@app.command("recover")
def recover(
    context: typer.Context,
    owner: Annotated[str, typer.Argument(help="The platform's id of who owes.")],
    by: By,
    reason: Annotated[str | None, typer.Option(help="The reason; stored in the books.")] = None,
    key: Key = None,
) -> None:
    """Pay an owner's debts from their balance now, the oldest debt first.

    Releases do so by themselves, and deposits do not.

    Example: `buffer-pipeline debt recover worker-17 --by admin-1`
    """
    output: Output = context.obj
    with one_transaction() as (connection, _, now):
        done = recover_debts(connection, owner=owner, by=by, reason=reason, reference=key, now=now)
        places = places_of(connection)
    word = "recovered before" if done.replayed else "recovered"
    output.answer(
        {"owner": done.owner, "recovered": amounts_by_currency(done.recovered_minor, places)},
        text=f"Owner {done.owner}: {word} {money(done.recovered_minor, places)}.",
    )
