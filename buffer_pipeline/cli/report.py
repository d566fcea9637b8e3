"""`buffer-pipeline report`: the figures of the last days as a table, as JSON or as one HTML file."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from buffer_pipeline.cli.output import Output, iso, present
from buffer_pipeline.cli.session import books
from buffer_pipeline.cli.whole_file import require_writable, whole_file
from buffer_pipeline.database import database_clock, snapshot
from buffer_pipeline.extras import need

if TYPE_CHECKING:
    from buffer_pipeline.reports.daily import DailyReport

REPORT_DAYS_MAX: Final = 366
_SHARES: Final = ("currency", "kind", "released_on_day", "released", "in_buffer")


app: Final = typer.Typer(rich_markup_mode="markdown")


@app.command("report")
def report_command(
    context: typer.Context,
    days: Annotated[
        int,
        typer.Option(
            min=1,
            max=REPORT_DAYS_MAX,
            help="The number of whole days (UTC), up to the last one that is over.",
        ),
    ] = 30,
    html: Annotated[
        Path | None,
        typer.Option(help="Write the report to this file, with plots; an existing file is replaced."),
    ] = None,
) -> None:
    """Compare the last whole day with the fortnight before it, and report the days up to it. Only reads.

    Example: `buffer-pipeline report --days 30 --html report.html`
    """
    output: Output = context.obj
    if html is not None:
        require_writable(html, option="--html", such_as="report.html")
    need("reports", "pygal")
    from buffer_pipeline.reports.complete_hours import FORTNIGHT, last_day_over
    from buffer_pipeline.reports.daily import daily_report, render_page

    with books() as (engine, _):
        with engine.connect() as connection:
            now = database_clock(connection)
            day = last_day_over(connection, now=now)
        # The snapshot begins after the check that the day is over.
        with snapshot(engine) as connection:
            report = daily_report(connection, day=day, days=days)
    yesterday = now.astimezone(UTC).date() - timedelta(days=1)
    if day != yesterday:
        output.remark(f"yesterday is not complete: a transaction still writes into {yesterday}")
    if html is not None:
        with whole_file(html, option="--html") as file:
            file.write(render_page(report, made_at=now).encode())
    if output.as_json:
        output.answer(_document(report, made_at=now, html=html))
        return
    covers = f"{report.first_day} to {report.day} (UTC)"
    if html is not None:
        output.remark(f"Wrote {html}: {covers}.")
        return
    output.remark(f"{report.day} compared with the {FORTNIGHT} days before it; the period is {covers}.")
    rows = _aligned(report.table)
    output.table(rows, columns=tuple(rows[0]), empty="")
    if report.shares:
        output.remark("\nFees, taxes and reserves:")
        output.table(present(report.shares, report.places), columns=_SHARES, empty="")


def _document(report: "DailyReport", *, made_at: datetime, html: Path | None) -> dict[str, Any]:
    return {
        "day": report.day.isoformat(),
        "first_day": report.first_day.isoformat(),
        "made_at": iso(made_at),
        "books_begin": None if report.books_begin is None else iso(report.books_begin),
        "figures": [figure.document() for figure in report.figures],
        "days": [present({**row, "day": row["day"].isoformat()}, report.places) for row in report.days],
        "shares": present(report.shares, report.places),
        "html": None if html is None else str(html),
    }


def _aligned(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the rows with their numbers aligned to the right."""
    widths = {name: max(len(row[name]) for row in rows) for name in rows[0]}
    return [
        {
            name: text if name in ("currency", "figure") else text.rjust(widths[name])
            for name, text in row.items()
        }
        for row in rows
    ]
