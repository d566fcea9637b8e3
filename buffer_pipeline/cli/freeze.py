"""`buffer-pipeline freeze`, `unfreeze`, `refund` and `stuck`."""

import re
from dataclasses import asdict
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final

import typer

from buffer_pipeline.cli.options import By, PayeeText, Reason, Reference
from buffer_pipeline.cli.output import Output, present
from buffer_pipeline.cli.session import one_snapshot, one_transaction
from buffer_pipeline.currencies import places_of
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.freeze import Freeze, freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.reports.holds import show_hold
from buffer_pipeline.reports.stuck import stuck_holds, stuck_owners

_DURATION_MAX: Final = 100_000
_UNIT_OF_SUFFIX: Final = {"m": "minutes", "h": "hours", "d": "days"}


class Kind(StrEnum):
    """The kinds of freezes that a backjob does not open."""

    ADMIN = "admin"
    RISK = "risk"


app: Final = typer.Typer(rich_markup_mode="markdown")


@app.command("freeze")
def freeze(
    context: typer.Context,
    hold_id: Annotated[int, typer.Argument(help="The hold's id.")],
    kind: Annotated[Kind, typer.Option(case_sensitive=False, help="Who freezes it.")],
    by: By,
    reason: Reason,
    reference: Reference = None,
    payee_text: PayeeText = None,
) -> None:
    """Freeze a hold: it is not released until the freeze is closed. A hold can have several freezes.

    With the id of an earning's own hold, all unsettled shares of the earning are frozen; with the id of
    another share, that share only.

    Example: `buffer-pipeline freeze 41 --kind risk --by risk-2 --reason "card reported stolen"
    --reference case-12`
    """
    output: Output = context.obj
    with one_transaction() as (connection, _, now):
        done = freeze_hold(
            connection,
            hold_id=hold_id,
            kind=FreezeKind(kind.upper()),
            by=by,
            reason=reason,
            reference=reference,
            payee_text=payee_text,
            now=now,
        )
    _answer(output, done, word="was opened before" if done.replayed else "is open")


@app.command("unfreeze")
def unfreeze(
    context: typer.Context,
    freeze_id: Annotated[int, typer.Argument(help="The id of the freeze, as `hold show` lists it.")],
    by: By,
    reason: Reason,
    reference: Reference = None,
) -> None:
    """Close a freeze; if it is the last one of its hold, the hold returns to the buffer.

    The freeze of an earning is closed on all of its shares.

    Example: `buffer-pipeline unfreeze 12 --by risk-2 --reason "cleared" --reference case-12-closed`
    """
    output: Output = context.obj
    with one_transaction() as (connection, _, now):
        done = unfreeze_hold(
            connection, freeze_id=freeze_id, by=by, reason=reason, reference=reference, now=now
        )
    _answer(output, done, word="was closed already" if done.replayed else "is closed")


@app.command("refund")
def refund(
    context: typer.Context,
    hold_id: Annotated[int, typer.Argument(help="The hold's id.")],
    by: By,
    reason: Reason,
    reference: Annotated[str, typer.Option(help="Idempotency key of the refund.")],
    amount: Annotated[
        str | None, typer.Option(help="Refund only this amount; the rest stays frozen; default: all of it.")
    ] = None,
) -> None:
    """Refund a frozen hold to its payer, without a backjob, at any time before it is settled.

    With the id of an earning's own hold, all unsettled shares of the earning are refunded, except a fee that
    its rule keeps. All of them must be frozen, as they are after `freeze` with the same id. A full refund
    closes the freezes of the hold. If a backjob covers the hold, decide the backjob instead.

    Example: `buffer-pipeline refund 41 --by admin-1 --reason "stolen card" --reference case-12-refund`
    """
    output: Output = context.obj
    with one_transaction() as (connection, _, now):
        done = refund_hold(
            connection, hold_id=hold_id, by=by, reason=reason, reference=reference, amount=amount, now=now
        )
        currency = show_hold(connection, hold_id=done.hold_id)["currency"]
        shown = asdict(done) | {"currency": currency}
        document = present(shown, places_of(connection))
    word = "refunded already" if done.replayed else "refunded"
    taken = "" if done.hold_ids == (done.hold_id,) else f" of holds {_listed(done.hold_ids)}"
    # What a settled hold leaves is in the other shares of its earning: a fee that its rule keeps.
    where = " in other shares" if done.left_minor and done.state is HoldState.REFUNDED else ""
    output.answer(
        document,
        text=f"Hold {done.hold_id}: {word} {document['amount']} {document['currency']}{taken},"
        f" {document['left']} left{where}; it is {done.state}.",
    )


@app.command("stuck")
def stuck(
    context: typer.Context,
    older_than: Annotated[
        str | None, typer.Option(help="Such as 72h, 3d or 90m; default: BUFFER_STUCK_AFTER_HOURS.")
    ] = None,
) -> None:
    """List holds that have been frozen for too long, the longest first, with the amount left in each.

    Shares of an earning that were frozen together are one line, with the number of `holds`. Before all comes
    a line for each frozen owner and currency, with the number of their `holds` that no other freeze covers;
    its `kinds` begin with OWNER. `unfreeze-owner` returns these to the buffer.

    Example: `buffer-pipeline stuck --older-than 24h`
    """
    output: Output = context.obj
    age = None if older_than is None else _parse_duration(older_than)
    with one_snapshot() as (connection, settings, now):
        stuck_after = settings.policy.stuck_after if age is None else age
        owners = stuck_owners(connection, now=now, older_than=stuck_after)
        holds = stuck_holds(connection, now=now, older_than=stuck_after)
        places = places_of(connection)
    of_owners = [
        {"hold_id": None, "job": None, "payee": row["owner"], "kinds": ["OWNER", row["kind"]], **row}
        for row in owners
    ]
    output.table(
        present([*of_owners, *holds], places),
        columns=("hold_id", "job", "payee", "holds", "left", "currency", "kinds", "frozen_since"),
        empty="Nothing is stuck.",
    )


def _answer(output: Output, done: Freeze, *, word: str) -> None:
    covered = "" if done.hold_ids == (done.hold_id,) else f" It covers holds {_listed(done.hold_ids)}."
    text = f"Freeze {done.freeze_id} {word}; hold {done.hold_ids[0]} is {done.state}.{covered}"
    output.answer(asdict(done), text=text)


def _listed(hold_ids: tuple[int, ...]) -> str:
    return ", ".join(map(str, hold_ids))


def _parse_duration(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,9})([mhd])", text)
    if found is None or int(found[1]) > _DURATION_MAX:
        raise InvalidInput(f"older_than {text!r}: not a duration such as 72h, 3d or 90m, up to 100000")
    return timedelta(**{_UNIT_OF_SUFFIX[found[2]]: int(found[1])})
