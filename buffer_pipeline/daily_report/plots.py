"""The pictures of a report, as PNG. Matplotlib's objects only: no pyplot, so no state between two of them.

Amounts are floats here, in major units: for the eye, never read back.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure as Picture
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from PIL import Image

from buffer_pipeline.daily_report.days import DAY
from buffer_pipeline.hours import HOUR

if TYPE_CHECKING:
    from buffer_pipeline.daily_report.report import DailyReport

WIDTH_PIXELS: Final = 900
HEIGHT_PIXELS: Final = 320
PANEL_PIXELS: Final = 190
"""How much each further panel adds to the height."""

CURRENCIES_MAX: Final = 4
"""How many currencies a picture shows: those with the most releases."""

HOURLY_DAYS_MAX: Final = 31
"""Of a longer period a bar is a day: an hour would be thinner than a pixel."""

# Okabe and Ito, https://jfly.uni-koeln.de/color/: told apart by the colour-blind too.
BLUE, ORANGE, GREEN, PURPLE = COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
_MARKERS: Final = ("o", "s", "^", "D")
_INK: Final = "#333333"
_DPI: Final = 100
_PALETTE: Final = 256
_SMALL: Final = 10
"""Below such an amount its cents are shown."""

_MINUTE: Final = 60
_LATENESS_TICKS: Final = {
    0: "0",
    30: "30 s",
    _MINUTE: "1 min",
    600: "10 min",
    3_600: "1 h",
    36_000: "10 h",
    259_200: "3 days",
    2_592_000: "30 days",
    31_536_000: "1 year",
}


def draw(report: "DailyReport") -> dict[str, bytes]:
    """Return `released`, `in_buffer` and `lateness`; each says so where there is nothing to show."""
    spans = _spans(report)
    return {
        "released": _draw_released(report, spans[spans["holds_released"] > 0]),
        "in_buffer": _draw_in_buffer(report),
        "lateness": _draw_lateness(report, spans[spans["lateness_max_seconds"].notna()]),
    }


def _draw_released(report: "DailyReport", released: pd.DataFrame) -> bytes:
    edges = pd.date_range(report.start, report.end, freq=_step(report), unit="us")

    def panel(axes: Axes, currency: str) -> None:
        of_currency = released[released["currency"] == currency].set_index("begins_at")["released_minor"]
        heights = _major(of_currency, report.places[currency]).reindex(edges[:-1], fill_value=0.0)
        axes.stairs(heights.to_numpy(), _numbers(edges), fill=True, color=BLUE)

    return _panels(
        report,
        f"Released per {_step_name(report)}",
        panel,
        currencies=_busiest_first(report, released),
        nothing="Nothing was released in these days.",
    )


def _draw_in_buffer(report: "DailyReport") -> bytes:
    in_buffer = report.in_buffer.assign(
        pending_minor=lambda frame: frame["buffered_minor"] + frame["frozen_minor"]
    )

    def panel(axes: Axes, currency: str) -> None:
        of_currency = in_buffer[in_buffer["currency"] == currency]
        moments = _numbers(pd.DatetimeIndex(of_currency["moment"]))
        frozen = _major(of_currency["frozen_minor"], report.places[currency]).to_numpy()
        pending = _major(of_currency["pending_minor"], report.places[currency]).to_numpy()
        axes.fill_between(moments, frozen, pending, color=BLUE, lw=0, label="BUFFERED")
        axes.fill_between(moments, 0, frozen, color=ORANGE, lw=0, label="FROZEN")

    return _panels(
        report,
        "In the buffer, by state",
        panel,
        currencies=_busiest_first(report, in_buffer[in_buffer["pending_minor"] > 0]),
        nothing="Nothing was in the buffer in these days.",
        legend=True,
    )


def _draw_lateness(report: "DailyReport", late: pd.DataFrame) -> bytes:
    currencies = _busiest_first(report, late)
    picture, (axes,) = _picture(1)
    _title(axes, f"Lateness of releases per {_step_name(report)}: the median, and a line up to the longest")
    if not currencies:
        return _nothing(picture, axes, "Nothing was released on schedule in these days.")
    shown = sorted(currencies[:CURRENCIES_MAX])
    for place, currency in enumerate(shown, start=1):
        colour, marker = COLOURS[place - 1], _MARKERS[place - 1]
        of_currency = late[late["currency"] == currency]
        # Beside each other, so that one does not hide the other.
        within = _step(report) * place / (len(shown) + 1)
        places = _numbers(pd.DatetimeIndex(of_currency["begins_at"] + within))
        medians = of_currency["lateness_median_seconds"].to_numpy("float64")
        longest = of_currency["lateness_max_seconds"].to_numpy("float64")
        axes.vlines(places, medians, longest, color=colour, lw=1, alpha=0.6)
        axes.plot(places, medians, marker, color=colour, ms=4, mec="white", mew=0.4, label=currency)
    # Of a payment that was frozen past its date the days would leave the others' minutes no room.
    axes.set_yscale("symlog", linthresh=_MINUTE)
    axes.set_yticks(list(_LATENESS_TICKS), list(_LATENESS_TICKS.values()))
    axes.set_ylim(0, 2 * max(late["lateness_max_seconds"].max(), _MINUTE))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("after the release date")
    _legend(axes)
    _dates(axes, report)
    return _png(picture, left_out=currencies[CURRENCIES_MAX:])


def _panels(
    report: "DailyReport",
    title: str,
    panel: Callable[[Axes, str], None],
    *,
    currencies: list[str],
    nothing: str,
    legend: bool = False,
) -> bytes:
    """Draw a panel a currency, since amounts of two currencies share no axis."""
    shown = sorted(currencies[:CURRENCIES_MAX])
    picture, panels = _picture(max(len(shown), 1))
    _title(panels[0], title)
    if not shown:
        return _nothing(picture, panels[0], nothing)
    for axes, currency in zip(panels, shown, strict=True):
        panel(axes, currency)
        axes.set_ylabel(currency)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(_amount_of(axes)))
    _dates(panels[-1], report)
    picture.align_ylabels(panels)
    if legend:
        _legend(panels[0])
    return _png(picture, left_out=currencies[CURRENCIES_MAX:])


def _picture(panels: int) -> tuple[Picture, list[Axes]]:
    height = HEIGHT_PIXELS + (panels - 1) * PANEL_PIXELS
    picture = Picture(
        figsize=(WIDTH_PIXELS / _DPI, height / _DPI),
        dpi=_DPI,
        layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08),
    )
    drawn = list(picture.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])
    for axes in drawn:
        axes.grid(axis="y", color="#dddddd", lw=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8.5, colors=_INK)
    return picture, drawn


def _title(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=_INK)


def _legend(axes: Axes) -> None:
    # Beside the title, where nothing is drawn.
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=CURRENCIES_MAX, frameon=False, fontsize=8.5)


def _dates(axes: Axes, report: "DailyReport") -> None:
    """Put UTC dates on an axis that all panels share."""
    locator = AutoDateLocator(tz="UTC", maxticks=12)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz="UTC"))  # type: ignore[no-untyped-call]
    axes.set_xlim(*_numbers(pd.DatetimeIndex([report.start, report.end])))
    axes.set_xlabel("UTC", fontsize=8.5)


def _amount_of(axes: Axes) -> Callable[[float, int | None], str]:
    return lambda value, _: f"{value:,.2f}" if axes.get_ylim()[1] < _SMALL else f"{value:,.0f}"


def _nothing(picture: Picture, axes: Axes, message: str) -> bytes:
    for ticks in (axes.set_xticks, axes.set_yticks):
        ticks([])
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.5, message, ha="center", va="center", fontsize=12, color=_INK, transform=axes.transAxes)
    return _png(picture)


def _png(picture: Picture, *, left_out: Sequence[str] = ()) -> bytes:
    if left_out:
        picture.supxlabel(f"Not drawn: {', '.join(left_out)}", x=0.01, ha="left", fontsize=8.5, color=_INK)
    canvas = FigureCanvasAgg(picture)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    # A palette takes half of what all colours take. By coverage, so that a few coloured points keep theirs.
    drawn = Image.fromarray(pixels).convert("RGB").quantize(_PALETTE, method=Image.Quantize.MAXCOVERAGE)
    png = BytesIO()
    drawn.save(png, format="PNG", optimize=True)
    return png.getvalue()


def _spans(report: "DailyReport") -> pd.DataFrame:
    """Return the figures of each hour, or of each day of a long period, as they are drawn.

    Columns: begins_at, currency, holds_released, released_minor, lateness_median_seconds,
    lateness_max_seconds.
    """
    if _step(report) == HOUR:
        return report.counts.rename(columns={"hour": "begins_at"})
    days = pd.DataFrame(report.days)
    days["begins_at"] = pd.to_datetime(days["day"], utc=True).dt.as_unit("us")
    return days[days["currency"].notna()]


def _step(report: "DailyReport") -> timedelta:
    return HOUR if report.end - report.start <= HOURLY_DAYS_MAX * DAY else DAY


def _step_name(report: "DailyReport") -> str:
    return "hour" if _step(report) == HOUR else "day"


def _busiest_first(report: "DailyReport", frame: pd.DataFrame) -> list[str]:
    """Return the currencies that the frame has, that with the most releases of the period first."""
    released = report.counts.groupby("currency")["holds_released"].sum()
    return sorted(set(frame["currency"]), key=lambda currency: (-released.get(currency, 0), currency))


def _major(amounts_minor: "pd.Series[int]", places: int) -> "pd.Series[float]":
    major: pd.Series[float] = amounts_minor.astype("float64") / 10**places
    return major


def _numbers(moments: pd.DatetimeIndex) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Return what matplotlib has for dates: days since 1970."""
    return np.asarray((moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(DAY), dtype="float64")
