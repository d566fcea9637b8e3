"""`buffer-pipeline verify`."""

from typing import Annotated, Final

import typer

from buffer_pipeline.audit.seals import Anchor
from buffer_pipeline.audit.seals import verify as verify_history
from buffer_pipeline.cli.output import Output
from buffer_pipeline.cli.session import books
from buffer_pipeline.database import snapshot
from buffer_pipeline.notifications.sanitize import counted

app: Final = typer.Typer(rich_markup_mode="markdown")


@app.command("verify")
def verify(
    context: typer.Context,
    anchors: Annotated[
        list[str] | None,
        typer.Option(
            "--anchor", help="An anchor that `release` printed and you stored; can be given several times."
        ),
    ] = None,
) -> None:
    """Compare the sealed transactions with their seals: name the first that was altered, added or removed.

    Somebody who can alter the books can also seal them again. An anchor that is stored elsewhere reveals that
    too; each release run in Dagster stores one. Exit 1 if something differs. Only reads.

    Example: `buffer-pipeline verify`
    """
    output: Output = context.obj
    noted = [Anchor.parse(text) for text in anchors or []]
    with books() as (engine, _), snapshot(engine) as connection:
        found = verify_history(connection, anchors=noted)
    compared = f"{counted(found.lines, 'transaction')} in {counted(found.seals, 'seal')}"
    last = "" if found.anchor is None else f", the last {found.anchor}"
    if found.offence is None:
        text = f"History is as it was sealed: {compared}{last}; {found.unsealed:,} since."
    else:
        text = f"{found.offence}.\nEverything before it is as it was sealed: {compared}{last}."
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
