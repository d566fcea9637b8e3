"""`buffer-pipeline hold …`: add, import, show and list holds."""

from dataclasses import asdict
from typing import Annotated, Final

import typer

from buffer_pipeline.cli.hold_import import import_
from buffer_pipeline.cli.output import Output, present
from buffer_pipeline.cli.session import one_look, one_transaction
from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import confirm
from buffer_pipeline.hold import HoldState
from buffer_pipeline.inputs import parse_time
from buffer_pipeline.intake import add_pending_earnings
from buffer_pipeline.reports import list_holds, show_hold

app = typer.Typer(help="Earnings in the buffer.")

_COLUMNS: Final = (
    "hold_id",
    "reference",
    "job",
    "payee",
    "amount",
    "refunded",
    "left",
    "currency",
    "state",
    "release_date",
)
_HEADINGS: Final = {"amount": "held"}
"""What people read: a hold's amount is what was held at first."""


@app.command("add")
def add(
    context: typer.Context,
    reference: Annotated[str, typer.Option(help="Idempotency key: the same earning, the same reference.")],
    job: Annotated[str, typer.Option(help="The platform's id of the work.")],
    payee: Annotated[str, typer.Option(help="The owner who earns.")],
    payer: Annotated[str, typer.Option(help="The owner who paid, to whom a refund goes.")],
    amount: Annotated[str, typer.Option(help="In the currency's major unit, such as 1250.50.")],
    currency: Annotated[str, typer.Option(help="ISO 4217, such as PHP.")],
    title: Annotated[str, typer.Option(help="What the work was.")] = "",
    held_at: Annotated[str | None, typer.Option(help="ISO 8601; now without it.")] = None,
    release_date: Annotated[
        str | None, typer.Option(help="ISO 8601; BUFFER_DAYS after held-at without it.")
    ] = None,
) -> None:
    """Hold an earning until its release date. The same again changes nothing.

    Example: `buffer-pipeline hold add --reference job-8-done --job job-8 --payee worker-17
    --payer client-3 --amount 1250.50 --currency PHP --title "Fix kitchen faucet"`
    """
    output: Output = context.obj
    with one_transaction() as (connection, settings, now):
        added = add_pending_earnings(
            connection,
            reference=reference,
            job=job,
            payee=payee,
            payer=payer,
            amount=amount,
            currency=currency,
            title=title,
            held_at=None if held_at is None else parse_time("held_at", held_at),
            release_date=None if release_date is None else parse_time("release_date", release_date),
            now=now,
            policy=settings.policy,
        )
    document = present(asdict(added))
    word = "stands already" if added.replayed else "is held"
    output.answer(
        {key: document[key] for key in ("hold_id", "reference", "state", "release_date", "replayed")},
        text=f"Hold {added.hold_id} {word}: {added.state}, release date {document['release_date']}.",
    )


@app.command("show")
def show(
    context: typer.Context,
    hold_id: Annotated[int | None, typer.Argument(help="The hold's id.")] = None,
    reference: Annotated[str | None, typer.Option(help="Instead of the id.")] = None,
) -> None:
    """Show a hold with its freezes and transactions: what was held, refunded, and is left in the buffer.

    Example: `buffer-pipeline hold show 41` or `buffer-pipeline hold show --reference job-8-done`
    """
    if (hold_id is None) == (reference is None):
        raise typer.BadParameter("give a HOLD_ID or --reference, one of them")
    output: Output = context.obj
    with one_look() as (connection, _, _now):
        document = present(show_hold(connection, hold_id=hold_id, reference=reference), places_of(connection))
        if reference is not None:
            # Whoever asks so wants to know whether a request went through.
            confirm(connection)
    if output.as_json:
        output.answer(document)
        return
    freezes, transactions = document.pop("freezes"), document.pop("transactions")
    output.answer({_HEADINGS.get(key, key): value for key, value in document.items()})
    output.answer(None, text="\nfreezes")
    output.table(
        freezes,
        columns=("freeze_id", "kind", "opened_by", "reason", "opened_at", "closed_by", "closed_at"),
        empty="none",
    )
    output.answer(None, text="\ntransactions")
    output.table(
        transactions,
        columns=("transaction_id", "type", "amount", "currency", "to", "balance_after", "recorded_at"),
        empty="none",
    )


@app.command("list")
def list_(
    context: typer.Context,
    state: Annotated[HoldState | None, typer.Option(case_sensitive=False, help="Only in this state.")] = None,
    payee: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    job: Annotated[str | None, typer.Option(help="Only of this job.")] = None,
    due: Annotated[bool, typer.Option("--due", help="Only what the next release takes.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, max=2**31, help="At most so many.")] = None,
) -> None:
    """List holds by release date: what was held, what of it was refunded, and what is left in the buffer.

    Example: `buffer-pipeline hold list --payee worker-17 --state BUFFERED`
    """
    output: Output = context.obj
    with one_look() as (connection, _, now):
        rows = list_holds(
            connection, state=state, payee=payee, job=job, due_by=now if due else None, limit=limit
        )
        places = places_of(connection)
    output.table(present(rows, places), columns=_COLUMNS, headings=_HEADINGS, empty="No such hold.")


app.command("import")(import_)
