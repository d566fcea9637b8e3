"""The plots of a report, as SVG: sharp on every screen, and small enough to be part of a page.

Amounts are floats in major units here, because they are only drawn.
"""

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from math import asinh
from typing import Any, Final
from xml.etree import ElementTree

import pandas as pd
from pygal import XY
from pygal.style import Style

from buffer_pipeline.hours import HOUR
from buffer_pipeline.reports.complete_hours import DAY
from buffer_pipeline.reports.daily.report import DailyReport

WIDTH_PIXELS: Final = 900
PANEL_PIXELS: Final = 200
"""The height of a panel: there is one per currency."""
TITLE_PIXELS: Final = 30
LEGEND_PIXELS: Final = 30
_TICK_PIXELS: Final = 4

CURRENCIES_MAX: Final = 4
"""How many currencies a plot shows: those with the most releases."""

HOURLY_DAYS_MAX: Final = 31
"""In a longer period a bar is a day, because an hour would be narrower than a pixel."""

# Okabe and Ito, https://jfly.uni-koeln.de/color/: colour-blind people can distinguish them.
BLUE, ORANGE, GREEN, PURPLE = COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
_INK: Final = "#333333"
_PALE: Final = "#dddddd"
_SVG: Final = "{http://www.w3.org/2000/svg}"
_LONG_NUMBER: Final = re.compile(r"(\.\d)\d+")
"""A tenth of a pixel is precise enough, and halves the size of the file."""

_SMALL: Final = 10
"""Amounts below this are labelled with two decimal places."""

_STEPS: Final = {
    DAY: ("3h", "%H:%M"),
    3 * DAY: ("12h", "%d %b %H:%M"),
    15 * DAY: ("D", "%d %b"),
    31 * DAY: ("3D", "%d %b"),
    92 * DAY: ("W-MON", "%d %b"),
    366 * DAY: ("MS", "%b %Y"),
}
"""The step between dates on the axis and their format, by the longest period for which they are used."""

_LATENESS_TITLE: Final = "Lateness after the release date: the median, and a line up to the longest"
_MINUTE: Final = 60
_LATENESS_TICKS: Final = {
    0: "0",
    _MINUTE: "1 min",
    600: "10 min",
    3_600: "1 h",
    36_000: "10 h",
    259_200: "3 days",
    2_592_000: "30 days",
    31_536_000: "1 year",
}

_Point = tuple[float, float] | tuple[float, None]


def draw(report: DailyReport) -> dict[str, bytes]:
    """Return the SVG documents `released`, `in_buffer` and `lateness`.

    A plot without data says so.
    """
    spans = _spans(report)
    return {
        "released": _draw_released(report, spans[spans["holds_released"] > 0]),
        "in_buffer": _draw_in_buffer(report),
        "lateness": _draw_lateness(report, spans[spans["lateness_max_seconds"].notna()]),
    }


def _draw_released(report: DailyReport, released: pd.DataFrame) -> bytes:
    edges = pd.date_range(report.start, report.end, freq=_step(report), unit="us")

    def panel(chart: XY, currency: str) -> None:
        of_currency = released[released["currency"] == currency].set_index("begins_at")["released_minor"]
        heights = _major(of_currency, report.places[currency]).reindex(edges[:-1], fill_value=0.0)
        seconds = _seconds(edges)
        # Both edges of each bar, so that the outline is one path of steps.
        steps = [(edge, height) for i, height in enumerate(heights) for edge in seconds[i : i + 2]]
        chart.add(currency, steps, fill=True, show_dots=False)

    return _panels(
        report,
        f"Released per {_step_name(report)}",
        panel,
        currencies=_busiest_first(report, released),
        nothing="Nothing was released in these days.",
    )


def _draw_in_buffer(report: DailyReport) -> bytes:
    in_buffer = report.in_buffer.assign(
        pending_minor=lambda frame: frame["buffered_minor"] + frame["frozen_minor"]
    )
    title = "In the buffer, by state"
    if _step(report) == DAY:
        title += ": the most of each day"
        days = in_buffer.groupby(["currency", in_buffer["moment"].dt.floor("D")])
        in_buffer = in_buffer.loc[days["pending_minor"].idxmax()]

    def panel(chart: XY, currency: str) -> None:
        of_currency = in_buffer[in_buffer["currency"] == currency]
        seconds = _seconds(pd.DatetimeIndex(of_currency["moment"]))
        # FROZEN is drawn over the sum of both.
        for name, column in (("BUFFERED", "pending_minor"), ("FROZEN", "frozen_minor")):
            amounts = _major(of_currency[column], report.places[currency])
            chart.add(name, list(zip(seconds, amounts, strict=True)), fill=True, show_dots=False)

    return _panels(
        report,
        title,
        panel,
        currencies=_busiest_first(report, in_buffer[in_buffer["pending_minor"] > 0]),
        nothing="Nothing was in the buffer in these days.",
        legend=2,
    )


def _draw_lateness(report: DailyReport, late: pd.DataFrame) -> bytes:
    currencies = _busiest_first(report, late)
    shown = sorted(currencies[:CURRENCIES_MAX])
    if not shown:
        nothing = "Nothing was released on schedule in these days."
        return _svg([_chart(report, _LATENESS_TITLE, nothing=nothing)])
    top = 2 * max(late["lateness_max_seconds"].max(), _MINUTE)
    chart = _chart(
        report,
        _LATENESS_TITLE,
        left_out=currencies[CURRENCIES_MAX:],
        legend=len(shown),
        range=(0, _height(top)),
        y_labels=[
            {"label": label, "value": _height(seconds)}
            for seconds, label in _LATENESS_TICKS.items()
            if seconds <= top
        ],
    )
    # Side by side, so that one currency does not hide another.
    gap = _step(report) / (len(shown) + 1)
    half = max(gap, (report.end - report.start) / WIDTH_PIXELS * _TICK_PIXELS).total_seconds() / 2
    for place, currency in enumerate(shown, start=1):
        of_currency = late[late["currency"] == currency]
        strokes: list[_Point] = []
        for x, median, longest in zip(
            _seconds(pd.DatetimeIndex(of_currency["begins_at"] + gap * place)),
            map(_height, of_currency["lateness_median_seconds"]),
            map(_height, of_currency["lateness_max_seconds"]),
            strict=True,
        ):
            strokes += [(x - half, median), (x + half, median), (x, None)]
            strokes += [(x, median), (x, longest), (x, None)]
        chart.add(currency, strokes, show_dots=False, allow_interruptions=True)
    return _svg([chart])


def _panels(
    report: DailyReport,
    title: str,
    panel: Callable[[XY, str], None],
    *,
    currencies: list[str],
    nothing: str,
    legend: int = 0,
) -> bytes:
    """Draw one panel per currency, because amounts of two currencies cannot share an axis."""
    shown = sorted(currencies[:CURRENCIES_MAX])
    if not shown:
        return _svg([_chart(report, title, nothing=nothing)])
    charts = []
    for currency in shown:
        last = currency == shown[-1]
        chart = _chart(
            report,
            title if currency == shown[0] else None,
            left_out=currencies[CURRENCIES_MAX:],
            legend=legend if last else 0,
            y_title=currency,
        )
        panel(chart, currency)
        charts.append(chart)
    return _svg(charts)


def _chart(
    report: DailyReport,
    title: str | None,
    *,
    nothing: str | None = None,
    left_out: Sequence[str] = (),
    legend: int = 0,
    **options: Any,
) -> XY:
    return XY(
        js=[],
        explicit_size=True,
        no_prefix=True,
        width=WIDTH_PIXELS,
        height=PANEL_PIXELS + bool(title) * TITLE_PIXELS + bool(legend) * LEGEND_PIXELS,
        margin=8,
        title=title and f"{title} (UTC{'; not drawn: ' if left_out else ''}{', '.join(left_out)})",
        xrange=tuple(_seconds(pd.DatetimeIndex([report.start, report.end]))),
        # Without data, pygal cannot place labels.
        x_labels=_dates(report) if nothing is None else [],
        show_x_labels=nothing is None,
        show_y_labels=nothing is None,
        show_x_guides=False,
        include_x_axis=True,
        value_formatter=_amount,
        show_legend=bool(legend),
        legend_at_bottom=True,
        legend_at_bottom_columns=legend,
        no_data_text=nothing,
        truncate_label=-1,
        truncate_legend=-1,
        style=Style(
            background="#ffffff",
            plot_background="#ffffff",
            foreground=_INK,
            foreground_strong=_INK,
            foreground_subtle=_PALE,
            font_family="system-ui, sans-serif",
            no_data_font_size=16,
            title_font_size=14,
            legend_font_size=11,
            opacity="1",
            opacity_hover="1",
            stroke_opacity="1",
            guide_stroke_dasharray="0",
            guide_stroke_color=_PALE,
            major_guide_stroke_dasharray="0",
            major_guide_stroke_color=_PALE,
            colors=COLOURS,
        ),
        **options,
    )


def _svg(charts: Sequence[XY]) -> bytes:
    """Return the charts one below the other, as one document without scripts."""
    document = ElementTree.Element(f"{_SVG}svg", {"width": str(WIDTH_PIXELS)})
    height = 0
    for chart in charts:
        panel = ElementTree.fromstring(chart.render())  # noqa: S314 - pygal's own
        for definitions in panel.findall(f"{_SVG}defs"):
            for script in definitions.findall(f"{_SVG}script"):
                definitions.remove(script)
            if height:  # The styles of the first panel apply to all.
                panel.remove(definitions)
        for group in panel.iter(f"{_SVG}g"):
            _join_paths(group)
        panel.set("y", str(height))
        height += int(panel.get("height", 0))
        document.append(panel)
    document.set("height", str(height))
    document.set("viewBox", f"0 0 {WIDTH_PIXELS} {height}")
    # Just before it is needed: the prefix is global, and other libraries set it for other documents.
    ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
    return ElementTree.tostring(document)


def _join_paths(group: ElementTree.Element) -> None:
    # pygal writes a path for each piece of an interrupted line, with six decimal places.
    paths = group.findall(f"{_SVG}path")
    for path in paths[:1]:
        pieces = " ".join(piece.get("d", "") for piece in paths)
        path.set("d", _LONG_NUMBER.sub(r"\1", pieces))
    for path in paths[1:]:
        group.remove(path)


def _dates(report: DailyReport) -> list[dict[str, str | float]]:
    length = report.end - report.start
    every, written = next((step for longest, step in _STEPS.items() if length <= longest), ("YS", "%Y"))
    dates = pd.date_range(report.start, report.end, freq=every)
    return [
        {"label": date.strftime(written), "value": seconds}
        for date, seconds in zip(dates, _seconds(dates), strict=True)
    ]


def _amount(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= _SMALL or not amount else f"{amount:,.2f}"


def _height(seconds: float) -> float:
    """Return the height at which lateness is drawn: linear up to about a minute, logarithmic above.

    A payment that was frozen beyond its release date is days late. On a linear axis, the minutes of the
    others could not be seen.
    """
    return asinh(seconds / _MINUTE)


def _spans(report: DailyReport) -> pd.DataFrame:
    """Return the figures that are drawn: of each hour, or of each day in a long period.

    Columns: begins_at, currency, holds_released, released_minor, lateness_median_seconds,
    lateness_max_seconds.
    """
    if _step(report) == HOUR:
        return report.counts.rename(columns={"hour": "begins_at"})
    days = pd.DataFrame(report.days)
    days["begins_at"] = pd.to_datetime(days["day"], utc=True).dt.as_unit("us")
    return days[days["currency"].notna()]


def _step(report: DailyReport) -> timedelta:
    return HOUR if report.end - report.start <= HOURLY_DAYS_MAX * DAY else DAY


def _step_name(report: DailyReport) -> str:
    return "hour" if _step(report) == HOUR else "day"


def _busiest_first(report: DailyReport, frame: pd.DataFrame) -> list[str]:
    """Return the currencies of the frame, those with the most releases in the period first."""
    released = report.counts.groupby("currency")["holds_released"].sum()
    return sorted(set(frame["currency"]), key=lambda currency: (-released.get(currency, 0), currency))


def _major(amounts_minor: "pd.Series[int]", places: int) -> "pd.Series[float]":
    major: pd.Series[float] = amounts_minor.astype("float64") / 10**places
    return major


def _seconds(moments: pd.DatetimeIndex) -> list[float]:
    seconds: list[float] = [moment.timestamp() for moment in moments]
    return seconds
