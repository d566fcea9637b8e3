"""`buffer-pipeline shadow`: the release beside the legacy command, compared."""

from pathlib import Path
from typing import Annotated, Final

import typer

from buffer_pipeline.cli.output import Output, iso, money
from buffer_pipeline.cli.session import books
from buffer_pipeline.inputs import parse_time
from buffer_pipeline.money import format_amount
from buffer_pipeline.texts import counted

_CURRENCY: Final = "PHP"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("shadow")(shadow_command)


def shadow_command(
    context: typer.Context,
    before: Annotated[Path, typer.Argument(help="The export from before the legacy command ran.")],
    after: Annotated[Path, typer.Argument(help="The export from behind it.")],
    at: Annotated[str, typer.Option(help="When the legacy command ran (ISO 8601).")],
) -> None:
    """Compare what this would have released with what the legacy command did. Nothing stays.

    Both exports are read, the first is imported into empty books, such as `buffer-pipeline migrate` makes,
    and released as of `--at` by the real statements, and all is rolled back. Exit 1 when a payment came out
    differently, or when a wallet's balance moved by other than its lines, as it does when two runs overlap.

    Example: `buffer-pipeline shadow before/ after/ --at 2026-11-18T23:35Z --home shadow`
    """
    from buffer_pipeline.shadow import compare_release

    output: Output = context.obj
    moment = parse_time("at", at)
    with books() as (engine, _), engine.connect() as connection:
        done = compare_release(connection, before=before, after=after, at=moment, currency=_CURRENCY)
        connection.rollback()
    lines = [
        f"{counted(done.waiting, 'payment')} waited at {iso(moment)}: {done.released} released by both,"
        f" {money({_CURRENCY: done.released_minor}, {_CURRENCY: done.places})}; {done.kept} kept by both;"
        f" {counted(len(done.differences), 'difference')}."
    ]
    lines += [f"{item.row}: {item.difference}" for item in done.differences]
    lines += [f"quarantined {item.row}: {item.reason}" for item in done.quarantined]
    output.answer(
        {
            "at": iso(moment),
            "waiting": done.waiting,
            "released": done.released,
            "released_amount": format_amount(done.released_minor, done.places),
            "kept": done.kept,
            "differences": [{"row": item.row, "difference": item.difference} for item in done.differences],
            "quarantined": [{"row": item.row, "reason": item.reason} for item in done.quarantined],
        },
        text="\n".join(lines),
    )
    if done.differences:
        raise typer.Exit(1)
