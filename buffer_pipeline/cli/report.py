"""`buffer-pipeline report`: the last days' figures as a table, as JSON or as one HTML file."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from stat import S_IMODE
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from buffer_pipeline.cli.output import Output, iso, present
from buffer_pipeline.cli.session import books
from buffer_pipeline.database import database_clock, one_moment
from buffer_pipeline.errors import Refused

if TYPE_CHECKING:
    from buffer_pipeline.daily_report import DailyReport

DAYS_MAX: Final = 366


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("report")(report_command)


def report_command(
    context: typer.Context,
    days: Annotated[
        int,
        typer.Option(
            min=1, max=DAYS_MAX, help="How many whole days (UTC), the last one that is over included."
        ),
    ] = 30,
    html: Annotated[
        Path | None, typer.Option(help="Write it to this file, with pictures; what stands there is replaced.")
    ] = None,
) -> None:
    """Report the last whole day against the fortnight before it, and the days up to it. Reads only.

    Example: `buffer-pipeline report --days 30 --html report.html`
    """
    output: Output = context.obj
    if html is not None:
        _require_writable(html)
    from buffer_pipeline.daily_report import FORTNIGHT, daily_report, last_day_over, render_page

    with books() as (engine, _):
        with engine.connect() as connection:
            now = database_clock(connection)
            day = last_day_over(connection, now=now)
        # Begun behind the question whether the day is over.
        with one_moment(engine) as connection:
            report = daily_report(connection, day=day, days=days)
    yesterday = now.astimezone(UTC).date() - timedelta(days=1)
    if day != yesterday:
        output.remark(f"yesterday is not complete: a transaction still writes into {yesterday}")
    if html is not None:
        _write_whole(html, render_page(report, made_at=now))
    if output.as_json:
        output.answer(_document(report, made_at=now, html=html))
        return
    covers = f"{report.first_day} to {report.day} (UTC)"
    if html is not None:
        output.remark(f"Wrote {html}: {covers}.")
        return
    output.remark(f"{report.day} against the {FORTNIGHT} days before it; the period is {covers}.")
    rows = _aligned(report.table)
    output.table(rows, columns=tuple(rows[0]), empty="")


def _document(report: "DailyReport", *, made_at: datetime, html: Path | None) -> dict[str, Any]:
    return {
        "day": report.day.isoformat(),
        "first_day": report.first_day.isoformat(),
        "made_at": iso(made_at),
        "books_begin": None if report.books_begin is None else iso(report.books_begin),
        "figures": [figure.document() for figure in report.figures],
        "days": [present({**row, "day": row["day"].isoformat()}, report.places) for row in report.days],
        "html": None if html is None else str(html),
    }


def _aligned(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the rows with their numbers flush right."""
    widths = {name: max(len(row[name]) for row in rows) for name in rows[0]}
    return [
        {
            name: text if name in ("currency", "figure") else text.rjust(widths[name])
            for name, text in row.items()
        }
        for row in rows
    ]


def _require_writable(path: Path) -> None:
    """Refuse before anything is read: a report takes its time.

    Raises:
        Refused: the folder does not exist, or something other than a file stands there.
    """
    try:
        if not path.parent.is_dir():
            raise Refused(f"--html {path}: the folder {path.parent} does not exist; make it first")
        # A device or a folder is not to be replaced by a file.
        if path.exists() and not path.is_file():
            raise Refused(f"--html {path}: stands there and is no file; name one, such as report.html")
    except OSError as error:
        raise Refused(f"--html {path}: {error.strerror}") from None


def _write_whole(path: Path, text: str) -> None:
    """Write the file beside its place and then put it there, so that nobody reads half of it.

    Raises:
        Refused: the folder cannot be written to.
    """
    # Where a link points to, so that it stays a link.
    target = path.resolve()
    try:
        # A name that nobody can foresee, and nobody else's to read until it is in its place.
        with NamedTemporaryFile("w", encoding="utf-8", dir=target.parent, delete=False) as file:
            beside = Path(file.name)
            try:
                file.write(text)
                file.close()
                beside.chmod(_mode(target))
                beside.replace(target)
            finally:
                beside.unlink(missing_ok=True)
    except OSError as error:
        raise Refused(f"--html {path}: {error.strerror}; nothing was written") from None


def _mode(path: Path) -> int:
    """Return the permissions of the file, or those that a new one has here."""
    if path.exists():
        return S_IMODE(path.stat().st_mode)
    # The umask can only be read by setting it: to the strictest for the moment.
    umask = os.umask(0o777)
    os.umask(umask)
    return 0o666 & ~umask
