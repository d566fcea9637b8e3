"""`buffer-pipeline claw-back`: take back what was released."""

from enum import StrEnum
from typing import Annotated, Final

import typer

from buffer_pipeline.cli.options import By, Reason
from buffer_pipeline.cli.output import Output
from buffer_pipeline.cli.session import one_transaction
from buffer_pipeline.currencies import places_of
from buffer_pipeline.debts import ClawbackTo, claw_back
from buffer_pipeline.money import format_amount


class To(StrEnum):
    """Who gets what is taken back."""

    PAYER = "payer"
    BANK = "bank"


app: Final = typer.Typer(rich_markup_mode="markdown")


@app.command("claw-back")
def take_back(
    context: typer.Context,
    amount: Annotated[str, typer.Option(help="In the currency's major unit, such as 1250.50.")],
    to: Annotated[
        To, typer.Option(case_sensitive=False, help="payer: a refund; bank: a chargeback has taken it.")
    ],
    by: By,
    reason: Reason,
    key: Annotated[str, typer.Option(help="Idempotency key of the claw-back.")],
    hold: Annotated[int | None, typer.Option(help="The hold's id.")] = None,
    reference: Annotated[str | None, typer.Option(help="Or the reference of the earning.")] = None,
    advanced_by: Annotated[
        str | None,
        typer.Option(metavar="OWNER", help="Who pays now what the payee's balance does not cover."),
    ] = None,
) -> None:
    """Take back what a hold has released, from the payee's balance; the rest becomes a debt of the payee.

    With the id of an earning's own hold, or with its reference, all shares give in proportion, except a fee
    that its rule keeps. Later releases to whoever owes something pay the debt first.

    Example: `buffer-pipeline claw-back --hold 41 --amount 1250.50 --to bank --by admin-1
    --reason "chargeback of 2 March" --key chargeback-12`
    """
    output: Output = context.obj
    with one_transaction() as (connection, _, now):
        done = claw_back(
            connection,
            hold_id=hold,
            earning_reference=reference,
            amount=amount,
            to=ClawbackTo(to.upper()),
            by=by,
            reason=reason,
            reference=key,
            advanced_by=advanced_by,
            now=now,
        )
        places = places_of(connection)[done.currency]
    taken, debt = format_amount(done.taken_minor, places), format_amount(done.debt_minor, places)
    word = "was taken back before" if done.replayed else "is taken back"
    owed = f"; {debt} {done.currency} is owed" if done.debt_minor else ""
    output.answer(
        {"clawback_id": done.clawback_id, "taken": taken, "debt": debt},
        text=f"Claw-back {done.clawback_id} of hold {done.hold_id}: {taken} {done.currency} {word}{owed}.",
    )
