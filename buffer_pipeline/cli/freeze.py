"""`buffer-pipeline freeze`, `unfreeze`, `refund` and `stuck`."""

import re
from dataclasses import asdict
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final

import typer

from buffer_pipeline.cli.options import By, Reason, Reference
from buffer_pipeline.cli.output import Output, present
from buffer_pipeline.cli.session import one_look, one_transaction
from buffer_pipeline.currencies import places_of
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.reports import show_hold, stuck_holds

_DURATION_MAX: Final = 100_000
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


class Kind(StrEnum):
    """The kinds that are not a backjob's."""

    ADMIN = "admin"
    RISK = "risk"


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command("freeze")(freeze)
    app.command("unfreeze")(unfreeze)
    app.command("refund")(refund)
    app.command("stuck")(stuck)


def freeze(
    context: typer.Context,
    hold_id: Annotated[int, typer.Argument(help="The hold's id.")],
    kind: Annotated[Kind, typer.Option(case_sensitive=False, help="Who keeps it back.")],
    by: By,
    reason: Reason,
    reference: Reference = None,
) -> None:
    """Keep a hold back until the freeze is closed. Freezes stack.

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
            now=now,
        )
    word = "was opened before" if done.replayed else "is open"
    output.answer(asdict(done), text=f"Freeze {done.freeze_id} {word}; hold {done.hold_id} is {done.state}.")


def unfreeze(
    context: typer.Context,
    freeze_id: Annotated[int, typer.Argument(help="The freeze's id, as `hold show` lists it.")],
    by: By,
    reason: Reason,
    reference: Reference = None,
) -> None:
    """Close a freeze; with the last one its hold goes back into the buffer.

    Example: `buffer-pipeline unfreeze 12 --by risk-2 --reason "cleared" --reference case-12-closed`
    """
    output: Output = context.obj
    with one_transaction() as (connection, _, now):
        done = unfreeze_hold(
            connection, freeze_id=freeze_id, by=by, reason=reason, reference=reference, now=now
        )
    word = "was closed already" if done.replayed else "is closed"
    output.answer(asdict(done), text=f"Freeze {done.freeze_id} {word}; hold {done.hold_id} is {done.state}.")


def refund(
    context: typer.Context,
    hold_id: Annotated[int, typer.Argument(help="The hold's id.")],
    by: By,
    reason: Reason,
    reference: Annotated[str, typer.Option(help="Idempotency key of the refund.")],
    amount: Annotated[
        str | None, typer.Option(help="Refund only so much; the rest stays frozen. All of it without.")
    ] = None,
) -> None:
    """Refund a frozen hold to its payer, without a backjob, at any time before it is settled.

    A whole refund closes the hold's freezes. While a backjob covers the hold, decide that instead.

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
    output.answer(
        document,
        text=f"Hold {done.hold_id}: {word} {document['amount']} {document['currency']},"
        f" {document['left']} left; it is {done.state}.",
    )


def stuck(
    context: typer.Context,
    older_than: Annotated[
        str | None, typer.Option(help="Such as 72h, 3d or 90m; BUFFER_STUCK_AFTER_HOURS without it.")
    ] = None,
) -> None:
    """List holds that have been frozen for too long, the longest first, with what is left of each.

    Example: `buffer-pipeline stuck --older-than 24h`
    """
    output: Output = context.obj
    age = None if older_than is None else _parse_duration(older_than)
    with one_look() as (connection, settings, now):
        rows = stuck_holds(
            connection, now=now, older_than=settings.policy.stuck_after if age is None else age
        )
        places = places_of(connection)
    output.table(
        present(rows, places),
        columns=("hold_id", "job", "payee", "left", "currency", "kinds", "frozen_since"),
        empty="Nothing is stuck.",
    )


def _parse_duration(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,9})([mhd])", text)
    if found is None or int(found[1]) > _DURATION_MAX:
        raise InvalidInput(f"older_than {text!r}: not a duration such as 72h, 3d or 90m, up to 100000")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
