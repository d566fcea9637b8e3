"""`buffer-pipeline verify`."""

from typing import Annotated

import typer

from buffer_pipeline.cli.output import Output
from buffer_pipeline.cli.session import books
from buffer_pipeline.database import one_moment
from buffer_pipeline.history import Anchor
from buffer_pipeline.history import verify as verify_history
from buffer_pipeline.texts import counted


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("verify")(verify)


def verify(
    context: typer.Context,
    anchors: Annotated[
        list[str] | None,
        typer.Option(
            "--anchor", help="A seal that was noted elsewhere, as `release` says it. May stand several times."
        ),
    ] = None,
) -> None:
    """Compare each sealed transaction with its seal: name the first that was altered, added or taken away.

    Whoever may alter the books may seal them anew; an anchor that was noted elsewhere, as each release run in
    Dagster does, shows that too. Exit 1 when something differs. Reads only.

    Example: `buffer-pipeline verify`
    """
    output: Output = context.obj
    noted = [Anchor.parse(text) for text in anchors or []]
    with books() as (engine, _), one_moment(engine) as connection:
        found = verify_history(connection, anchors=noted)
    compared = f"{counted(found.lines, 'transaction')} in {counted(found.seals, 'seal')}"
    behind = "" if found.anchor is None else f", the last {found.anchor}"
    if found.offence is None:
        text = f"History is as it was sealed: {compared}{behind}; {found.unsealed:,} since."
    else:
        text = f"{found.offence}.\nWhat stands before it is as it was sealed: {compared}{behind}."
    output.answer(
        {
            "ok": found.offence is None,
            "offence": found.offence,
            "transaction_id": found.transaction_id,
            "seals": found.seals,
            "transactions": found.lines,
            "unsealed": found.unsealed,
            "anchor": None if found.anchor is None else str(found.anchor),
        },
        text=text,
    )
    if found.offence is not None:
        raise typer.Exit(1)
