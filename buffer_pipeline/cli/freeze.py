"""`buffer-pipeline freeze`, `unfreeze` and `stuck`."""

import re
from dataclasses import asdict
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final

import typer

from buffer_pipeline.cli.output import Output, present
from buffer_pipeline.cli.session import one_look, one_transaction
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.reports import stuck_holds

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
    app.command("stuck")(stuck)


def freeze(
    context: typer.Context,
    hold_id: Annotated[int, typer.Argument(help="The hold's id.")],
    kind: Annotated[Kind, typer.Option(help="Who keeps it back.")],
    by: Annotated[str, typer.Option(help="Who asks; it stays in the books.")],
    reason: Annotated[str, typer.Option(help="Why; it stays in the books.")],
) -> None:
    """Keep a hold back until the freeze is closed. Freezes stack.

    Example: `buffer-pipeline freeze 41 --kind risk --by risk-2 --reason "card reported stolen"`
    """
    output: Output = context.obj
    with one_transaction() as (connection, _, now):
        done = freeze_hold(
            connection, hold_id=hold_id, kind=FreezeKind(kind.upper()), by=by, reason=reason, now=now
        )
    output.answer(asdict(done), text=f"Freeze {done.freeze_id} stands; hold {done.hold_id} is {done.state}.")


def unfreeze(
    context: typer.Context,
    freeze_id: Annotated[int, typer.Argument(help="The freeze's id, as `hold show` lists it.")],
    by: Annotated[str, typer.Option(help="Who asks; it stays in the books.")],
    reason: Annotated[str, typer.Option(help="Why; it stays in the books.")],
) -> None:
    """Close a freeze; with the last one its hold goes back into the buffer.

    Example: `buffer-pipeline unfreeze 12 --by risk-2 --reason "cleared"`
    """
    output: Output = context.obj
    with one_transaction() as (connection, _, now):
        done = unfreeze_hold(connection, freeze_id=freeze_id, by=by, reason=reason, now=now)
    output.answer(
        asdict(done), text=f"Freeze {done.freeze_id} is closed; hold {done.hold_id} is {done.state}."
    )


def stuck(
    context: typer.Context,
    older_than: Annotated[
        str | None, typer.Option(help="Such as 72h, 3d or 90m; BUFFER_STUCK_AFTER_HOURS without it.")
    ] = None,
) -> None:
    """List holds that have been frozen for too long, the longest first.

    Example: `buffer-pipeline stuck --older-than 24h`
    """
    output: Output = context.obj
    age = None if older_than is None else _parse_duration(older_than)
    with one_look() as (connection, settings, now):
        rows = stuck_holds(
            connection, now=now, older_than=settings.policy.stuck_after if age is None else age
        )
    output.table(
        present(rows),
        columns=("hold_id", "job", "payee", "amount", "currency", "kinds", "frozen_since"),
        empty="Nothing is stuck.",
    )


def _parse_duration(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,9})([mhd])", text)
    if found is None or int(found[1]) > _DURATION_MAX:
        raise InvalidInput(f"older_than {text!r}: not a duration such as 72h, 3d or 90m, up to 100000")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
