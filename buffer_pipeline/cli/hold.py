"""`buffer-pipeline hold …`: add, import, show, list and reschedule holds."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any, Final

import typer

from buffer_pipeline.cli.hold_import import import_
from buffer_pipeline.cli.options import By, Reason, Reference
from buffer_pipeline.cli.output import Output, present, rows_of_page
from buffer_pipeline.cli.session import one_snapshot, one_transaction
from buffer_pipeline.cli.share_texts import parse_share
from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import confirm
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.hold import HoldState
from buffer_pipeline.hold_metadata import parse_metadata, shown_metadata
from buffer_pipeline.inputs import parse_time
from buffer_pipeline.intake import AddedShare, add_pending_earnings
from buffer_pipeline.money import parse_amount
from buffer_pipeline.reads import LIMIT_MAX, Role, every_item, list_holds
from buffer_pipeline.reports.holds import show_hold
from buffer_pipeline.reschedule import reschedule_hold
from buffer_pipeline.shares import ShareKind

app = typer.Typer(rich_markup_mode="markdown")

_HOLD_COLUMNS: Final = (
    "hold_id",
    "reference",
    "job",
    "payee",
    "amount",
    "refunded",
    "left",
    "currency",
    "kind",
    "state",
    "release_date",
)
_HEADINGS: Final = {"amount": "held"}
"""Headings in tables: the amount of a hold is what was held at first."""


@app.command("add")
def add(
    context: typer.Context,
    reference: Annotated[
        str, typer.Option(help="Idempotency key: use the same reference for the same earning.")
    ],
    job: Annotated[str, typer.Option(help="The platform's id of the work.")],
    payee: Annotated[str, typer.Option(help="The owner who earns.")],
    payer: Annotated[str, typer.Option(help="The owner who paid, and who receives a refund.")],
    amount: Annotated[str, typer.Option(help="In the currency's major unit, such as 1250.50.")],
    currency: Annotated[str, typer.Option(help="ISO 4217, such as PHP.")],
    title: Annotated[str, typer.Option(help="The title of the work.")] = "",
    held_at: Annotated[
        str | None, typer.Option(help="When the hold begins (ISO 8601); default: now.")
    ] = None,
    release_date: Annotated[
        str | None,
        typer.Option(help="ISO 8601; default: the rule's days, or else BUFFER_DAYS, after --held-at."),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(help="The hold rule that applies; default: the payee's rule, or else `standard`."),
    ] = None,
    share: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:OWNER:AMOUNT",
            help="Such as FEE:platform:150.00, FEE:platform:12% or PAYEE:worker-17:rest; once for each share."
            " KIND is PAYEE, FEE, TAX or RESERVE. They add up to --amount, and replace the rule's shares."
            " `:90d` after it: it is released 90 days after --held-at.",
        ),
    ] = None,
    metadata: Annotated[
        str | None, typer.Option(help="A JSON object of your own, at most 20 keys; it is never interpreted.")
    ] = None,
) -> None:
    """Hold an earning until its release date. To add the same earning again changes nothing.

    Example: `buffer-pipeline hold add --reference job-8-done --job job-8 --payee worker-17
    --payer client-3 --amount 1250.50 --currency PHP --title "Fix kitchen faucet"`
    """
    output: Output = context.obj
    shares = [parse_share(text) for text in share or ()]
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
            rule=rule,
            shares=shares,
            metadata=None if metadata is None else parse_metadata(metadata),
            now=now,
            policy=settings.policy,
        )
        places = places_of(connection)
    alone = AddedShare(
        hold_id=added.hold_id,
        kind=ShareKind.PAYEE,
        owner=payee,
        amount_minor=parse_amount(amount, currency, places[currency]),
        release_date=added.release_date,
    )
    document = present({**asdict(added), "shares": _rows(added.shares or [alone])}, places, currency)
    word = "exists already" if added.replayed else "is held"
    text = f"Hold {added.hold_id} {word}: {added.state}, release date {document['release_date']}."
    text += "".join(
        f"\n{row['kind']} {row['amount']} {currency} for {row['owner']}: hold {row['hold_id']},"
        f" release date {row['release_date']}"
        for row in document["shares"]
        if added.shares
    )
    names = ("hold_id", "reference", "state", "release_date", "replayed", "shares")
    output.answer({name: document[name] for name in names}, text=text)


def _rows(shares: Iterable[AddedShare]) -> list[dict[str, Any]]:
    return [asdict(share) for share in shares]


@app.command("show")
def show(
    context: typer.Context,
    hold_id: Annotated[int | None, typer.Argument(help="The hold's id.")] = None,
    reference: Annotated[str | None, typer.Option(help="The reference, instead of the id.")] = None,
) -> None:
    """Show a hold with its freezes, moves and transactions: what was held, refunded, and is
    left in the buffer.

    A move is a change of its release date.

    Example: `buffer-pipeline hold show 41` or `buffer-pipeline hold show --reference job-8-done`
    """
    if (hold_id is None) == (reference is None):
        raise typer.BadParameter("give either a HOLD_ID or --reference")
    output: Output = context.obj
    with one_snapshot() as (connection, _, _now):
        document = present(show_hold(connection, hold_id=hold_id, reference=reference), places_of(connection))
        if reference is not None:
            # A caller who asks by reference wants to know whether a request was committed.
            confirm(connection)
    if output.as_json:
        output.answer(document)
        return
    freezes, moves = document.pop("freezes"), document.pop("moves")
    transactions = document.pop("transactions")
    shares = document.pop("shares")
    if metadata := document.pop("metadata"):
        document["metadata"] = shown_metadata(metadata)
    if document["earning_id"] is None:
        del document["earning_id"]
    output.answer({_HEADINGS.get(key, key): value for key, value in document.items()})
    if shares:
        output.answer(None, text="\nshares of the earning")
        output.table(
            shares,
            columns=("hold_id", "kind", "owner", "amount", "currency", "state", "release_date"),
            empty="none",
        )
    output.answer(None, text="\nfreezes")
    output.table(
        freezes,
        columns=(
            "freeze_id",
            "kind",
            "owner_freeze_id",
            "opened_by",
            "reason",
            "opened_at",
            "closed_by",
            "closed_at",
        ),
        empty="none",
    )
    output.answer(None, text="\nmoves")
    output.table(moves, columns=("at", "by", "reason", "from", "to"), empty="none")
    output.answer(None, text="\ntransactions")
    output.table(
        transactions,
        columns=("transaction_id", "type", "amount", "currency", "to", "balance_after", "recorded_at"),
        empty="none",
    )


@app.command("list")
def list_(
    context: typer.Context,
    state: Annotated[
        HoldState | None, typer.Option(case_sensitive=False, help="Only holds in this state.")
    ] = None,
    payee: Annotated[str | None, typer.Option(help="Only holds of this payee.")] = None,
    payer: Annotated[
        str | None, typer.Option(help="Only holds of this payer; a payee and a payer cannot both be given.")
    ] = None,
    job: Annotated[str | None, typer.Option(help="Only holds of this job.")] = None,
    kind: Annotated[
        ShareKind | None, typer.Option(case_sensitive=False, help="Only shares of this kind.")
    ] = None,
    due: Annotated[bool, typer.Option("--due", help="Only holds that the next release takes.")] = False,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Only holds whose metadata has this value; repeat it for more keys."
        ),
    ] = None,
    held_since: Annotated[
        str | None, typer.Option(help="Only holds that began at this time or later (ISO 8601).")
    ] = None,
    held_before: Annotated[
        str | None, typer.Option(help="Only holds that began before this time (ISO 8601).")
    ] = None,
    newest: Annotated[bool, typer.Option("--newest", help="The newest first.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, max=2**31, help="At most this number of holds.")] = None,
) -> None:
    """List holds, the oldest first: the amount held, refunded, and left in the buffer.

    Example: `buffer-pipeline hold list --payee worker-17 --state BUFFERED` or
    `buffer-pipeline hold list --metadata order=A-17`
    """
    output: Output = context.obj
    wanted = _pairs(metadata or ())
    if payee is not None and payer is not None:
        raise typer.BadParameter("give either --payee or --payer")
    with one_snapshot() as (connection, _, now):
        holds = every_item(
            lambda cursor: list_holds(
                connection,
                owner=payee or payer,
                role=Role.PAYEE if payer is None else Role.PAYER,
                state=state,
                job=job,
                kind=kind,
                due_by=now if due else None,
                held_since=None if held_since is None else parse_time("held_since", held_since),
                held_before=None if held_before is None else parse_time("held_before", held_before),
                metadata=wanted,
                oldest_first=not newest,
                limit=min(limit or LIMIT_MAX, LIMIT_MAX),
                cursor=cursor,
            )
        )
        rows = rows_of_page(islice(holds, limit))
        places = places_of(connection)
    output.table(present(rows, places), columns=_HOLD_COLUMNS, headings=_HEADINGS, empty="No holds found.")


def _pairs(options: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for option in options:
        key, is_pair, value = option.partition("=")
        if not is_pair:
            raise typer.BadParameter(f"{option!r}: write KEY=VALUE", param_hint="'--metadata'")
        if key in pairs:
            raise InvalidInput(f"metadata key {key!r}: occurs twice; a hold has one value of each key")
        pairs[key] = value
    return pairs


@app.command("reschedule")
def reschedule(
    context: typer.Context,
    hold_id: Annotated[int, typer.Argument(help="The hold's id.")],
    to: Annotated[str, typer.Option(help="The new release date (ISO 8601).")],
    by: By,
    reason: Reason,
    admin: Annotated[
        bool, typer.Option("--admin", help="Act as an admin, who may also move the date to a later one.")
    ] = False,
    reference: Reference = None,
) -> None:
    """Move the release date of a hold; the window for a backjob ends at the new date.

    The payer can move it to an earlier date. With --admin it can also be moved to a later one, up to 90 days
    after the original release date. By the id of an earning's own hold, its shares with the same date move
    too. The payee is told.

    Example: `buffer-pipeline hold reschedule 41 --to 2026-12-01T00:00Z --by admin-1
    --reason "client abroad" --admin`
    """
    output: Output = context.obj
    with one_transaction() as (connection, settings, now):
        done = reschedule_hold(
            connection,
            hold_id=hold_id,
            to=parse_time("to", to),
            by=by,
            reason=reason,
            as_admin=admin,
            reference=reference,
            now=now,
            policy=settings.policy,
        )
    document = present(asdict(done))
    word = "was moved before" if done.replayed else "is moved"
    others = ", ".join(map(str, done.hold_ids[1:]))
    output.answer(
        document,
        text=f"Hold {done.hold_id} {word} from {document['was']} to {document['release_date']}."
        + (f" Shares that moved with it: {others}." if others else ""),
    )


app.command("import")(import_)
