"""`buffer-pipeline shadow`: compares a release with the legacy command."""

from pathlib import Path
from typing import Annotated, Final

import typer

from buffer_pipeline.cli.output import Output, iso, money
from buffer_pipeline.cli.session import books
from buffer_pipeline.inputs import parse_time
from buffer_pipeline.money import format_amount
from buffer_pipeline.notifications.sanitize import counted

_CURRENCY: Final = "PHP"


app: Final = typer.Typer(rich_markup_mode="markdown")


@app.command("shadow")
def shadow_command(
    context: typer.Context,
    before: Annotated[Path, typer.Argument(help="The export from before the legacy command ran.")],
    after: Annotated[Path, typer.Argument(help="The export from after it ran.")],
    at: Annotated[str, typer.Option(help="When the legacy command ran (ISO 8601).")],
) -> None:
    """Compare what this would have released with what the legacy command released. Nothing is kept.

    The first export is imported into empty books, such as `buffer-pipeline migrate` creates, and released as
    of `--at` with the real statements. The result is compared with the second export, and everything is
    rolled back. Exit 1 if a payment differs, or if a wallet's balance changed by another amount than its
    lines, which happens when two legacy runs overlap.

    Example: `buffer-pipeline shadow before/ after/ --at 2026-11-18T23:35Z --home shadow`
    """
    from buffer_pipeline.legacy.shadow import compare_release

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
