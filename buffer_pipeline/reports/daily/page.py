"""A report as one HTML file that needs no other file."""

from base64 import b64encode
from datetime import UTC, datetime
from functools import cache
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from buffer_pipeline.reports.complete_hours import FORTNIGHT
from buffer_pipeline.reports.daily.figures import LABELS, Figure, value_text
from buffer_pipeline.reports.daily.plots import draw
from buffer_pipeline.reports.daily.report import DailyReport
from buffer_pipeline.reports.daily.shares import SHARE_AMOUNTS


def render_page(report: DailyReport, *, made_at: datetime) -> str:
    """Return the report as an HTML document with its tables and plots."""
    return _template().render(
        report=report,
        fortnight=FORTNIGHT,
        period="1 day" if report.first_day == report.day else f"{(report.end - report.start).days} days",
        made_at=_minute(made_at),
        start=_minute(report.start),
        end=_minute(report.end),
        books_begin=None if report.books_begin is None else _minute(report.books_begin),
        highlights=[_highlight(figure) for figure in report.figures if figure.name == "released_minor"],
        comparisons=[
            (currency, [figure.texts() for figure in figures])
            for currency, figures in groupby(report.shown_figures, key=_heading)
        ],
        shares=[
            (
                row["currency"],
                row["kind"].capitalize(),
                [value_text(name, row[name], report.places[row["currency"]]) for name in SHARE_AMOUNTS],
            )
            for row in report.shares
        ],
        pictures=[
            (report.plot_titles[name], f"data:image/svg+xml;base64,{b64encode(svg).decode('ascii')}")
            for name, svg in draw(report).items()
        ],
        labels=LABELS.values(),
        days=[
            (
                currency,
                [_day(row, report.places[currency]) for row in report.days if row["currency"] == currency],
            )
            for currency in report.currencies
        ],
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("buffer_pipeline"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _heading(figure: Figure) -> str:
    return figure.currency or "All currencies"


def _highlight(figure: Figure) -> dict[str, str]:
    texts = figure.texts()
    return {"currency": texts["currency"], "amount": texts["day"], "change": texts["change"]}


def _day(row: dict[str, Any], places: int) -> tuple[str, list[str]]:
    return str(row["day"]), [value_text(name, row[name], places) for name in LABELS]


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
