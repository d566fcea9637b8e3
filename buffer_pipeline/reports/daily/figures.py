"""The figures of a report: their labels, their comparison, and their text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from buffer_pipeline.money import format_amount

LABELS: Final = {
    "holds_added": "holds added",
    "added_minor": "amount added",
    "holds_released": "holds released",
    "released_minor": "amount released",
    "holds_released_early": "holds released early",
    "parts_released": "parts released early",
    "payees": "payees released to",
    "lateness_median_seconds": "lateness, median",
    "lateness_max_seconds": "lateness, longest",
    "refunds": "refunds",
    "refunded_minor": "amount refunded",
    "freezes_opened": "freezes opened",
    "freezes_closed": "freezes closed",
    "buffered_minor": "BUFFERED at the end",
    "frozen_minor": "FROZEN at the end",
}
"""The figures in the order in which they are shown. A name ends with its unit."""

SUMMED: Final = (
    "holds_added",
    "added_minor",
    "holds_released",
    "released_minor",
    "holds_released_early",
    "parts_released",
    "refunds",
    "refunded_minor",
    "freezes_opened",
    "freezes_closed",
)
"""Figures that can be added over hours or days. Payees cannot: one who was paid on two days is one payee."""

AT_THE_END: Final = ("buffered_minor", "frozen_minor")
OVERALL: Final = tuple(name for name in LABELS if not name.endswith("_minor"))
"""Figures that are also shown for all currencies together. Amounts of several currencies have no sum."""

NOTHING: Final = "–"
_TENTH: Final = Decimal("0.1")

Value = int | float | None


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of a currency, or of all together (`currency` None): a day and the 14 days before it.

    `period` is the figure of all days of the report. Amounts are minor units of a currency with `places`.
    Lateness is in seconds; None if there was nothing to measure. `fortnight_mean` is exact.
    """

    name: str
    currency: str | None
    places: int | None
    day: Value
    fortnight_mean: Fraction | None
    period: Value

    @property
    def change_percent(self) -> Decimal | None:
        """The change from the mean to the day, to a tenth of a percent; None if the mean is None or 0."""
        if self.day is None or not self.fortnight_mean:
            return None
        change = (Fraction(self.day) / self.fortnight_mean - 1) * 1000
        return round(change) * _TENTH

    def document(self) -> dict[str, Any]:
        """Return the figure as JSON values for programs. Amounts are text with the currency's places."""
        change = self.change_percent
        return {
            "currency": self.currency,
            "figure": self.name.removesuffix("_minor"),
            "day": self._plain(self.day),
            "fortnight_mean": self._plain(self.fortnight_mean),
            "change_percent": None if change is None else float(change),
            "period": self._plain(self.period),
        }

    def texts(self) -> dict[str, str]:
        """Return the figure as text for people: with thousands separators, lateness as h:mm:ss."""
        change = self.change_percent
        return {
            "currency": self.currency or "all currencies",
            "figure": LABELS[self.name],
            "day": value_text(self.name, self.day, self.places),
            "fortnight_mean": value_text(self.name, self.fortnight_mean, self.places),
            "change": NOTHING if change is None else f"{change:+,} %" if change else f"{change} %",
            "period": value_text(self.name, self.period, self.places),
        }

    def _plain(self, value: Value | Fraction) -> Any:
        if value is not None and self.name.endswith("_minor"):
            assert self.places is not None, "an amount has a currency"
            return format_amount(round(value), self.places)
        return round(float(value), 3) if isinstance(value, Fraction | float) else value


def value_text(name: str, value: Value | Fraction, places: int | None) -> str:
    """Return a figure's value as text for people: 1,250.50 or -0.50 or 12.4 or 0:29:13."""
    if value is None:
        return NOTHING
    if name.endswith("_minor"):
        assert places is not None, "an amount has a currency"
        amount_minor = round(value)
        whole, point, fraction = format_amount(abs(amount_minor), places).partition(".")
        return f"{'-' if amount_minor < 0 else ''}{int(whole):,}{point}{fraction}"
    if name.endswith("_seconds"):
        minutes, seconds = divmod(round(value), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours:,}:{minutes:02}:{seconds:02}"
    return f"{value:,}" if isinstance(value, int) else f"{float(value):,.1f}"


def compare(
    currency: str | None,
    *,
    places: int | None,
    day: Mapping[str, Value],
    fortnight: Sequence[Mapping[str, Value]],
    days: Sequence[Mapping[str, Value]],
    period: Mapping[str, Value],
) -> list[Figure]:
    """Return the figures of one currency, in order.

    `period` has the figures that cannot be computed from the `days`: payees and the median lateness. It is
    empty if there was no release.
    """
    names = LABELS if currency is not None else OVERALL
    return [
        Figure(
            name=name,
            currency=currency,
            places=places,
            day=day[name],
            fortnight_mean=_mean([values[name] for values in fortnight]),
            period=_over(name, [values[name] for values in days], period),
        )
        for name in names
    ]


def _mean(values: Sequence[Value]) -> Fraction | None:
    known = [Fraction(value) for value in values if value is not None]
    return sum(known, Fraction()) / len(known) if known else None


def _over(name: str, values: Sequence[Value], period: Mapping[str, Value]) -> Value:
    if name in SUMMED:
        return sum(value for value in values if value is not None)
    if name == "lateness_max_seconds":
        return max((value for value in values if value is not None), default=None)
    return period.get(name, 0 if name == "payees" else None)
