"""The daily report: a day compared with the 14 days before it, and the days up to it. Reads only."""

from dataclasses import dataclass
from datetime import date, datetime

import pandas as pd
from sqlalchemy import Connection

from buffer_pipeline.currencies import places_of
from buffer_pipeline.money import Places
from buffer_pipeline.reports.complete_hours import DAY, FORTNIGHT, first_hour, midnight
from buffer_pipeline.reports.daily.curve import amounts_in_buffer
from buffer_pipeline.reports.daily.days import payees_and_lateness_of_period, values_by_day
from buffer_pipeline.reports.daily.figures import Figure, compare
from buffer_pipeline.reports.daily.shares import shares_by_kind
from buffer_pipeline.reports.hourly_counts import counts_between
from buffer_pipeline.reports.rows import Rows


@dataclass(frozen=True, kw_only=True, eq=False)
class DailyReport:
    """The report of a day and of the days from `first_day` to it. Days are whole days in UTC.

    `figures` compare the day with the 14 days before it, for each currency and then for all together. `days`
    has one row for each day and currency of the period, with the figures of `figures.LABELS`; the rows for
    all currencies (`currency` None) have no amounts. `counts` are the period's hourly counts, as
    `counts_between` returns them; `in_buffer` is as `amounts_in_buffer` returns it, and `shares` as
    `shares_by_kind` does. Amounts are minor units; `places` has the decimal places of each currency.
    """

    day: date
    first_day: date
    books_begin: datetime | None
    currencies: tuple[str, ...]
    places: Places
    figures: tuple[Figure, ...]
    days: Rows
    shares: Rows
    counts: pd.DataFrame
    in_buffer: pd.DataFrame

    @property
    def start(self) -> datetime:
        """When the first day begins."""
        return midnight(self.first_day)

    @property
    def end(self) -> datetime:
        """When the day ends."""
        return midnight(self.day + DAY)

    @property
    def shown_figures(self) -> list[Figure]:
        """The figures, without those of all currencies together if there is only one currency."""
        return [figure for figure in self.figures if figure.currency is not None or len(self.currencies) != 1]

    @property
    def table(self) -> list[dict[str, str]]:
        """The shown figures as text: currency, figure, day, fortnight_mean, change, period."""
        return [figure.texts() for figure in self.shown_figures]

    @property
    def plot_titles(self) -> dict[str, str]:
        """What each plot shows, by its name, as the alternative text of the image."""
        days = f"{self.first_day} to {self.day} (UTC)"
        return {
            "released": f"Amount released by currency, {days}",
            "in_buffer": f"Amount in the buffer by state and currency, {days}",
            "lateness": f"Median and longest lateness of releases by currency, {days}",
        }


def daily_report(connection: Connection, *, day: date, days: int = FORTNIGHT + 1) -> DailyReport:
    """Report a day compared with the 14 days before it, and the `days` that end with it.

    In the mean of the 14 days, a day on which nothing happened counts as 0, also before the first
    transaction. A mean lateness is over the days that have a lateness. Payees and the median lateness come
    from the transactions of the whole day, the amounts in the buffer from `amounts_in_buffer`, all other
    figures from the hourly counts. A day that is not over is reported up to now.
    """
    assert days >= 1, "a report has a day"
    first_day = day - (days - 1) * DAY
    earliest = min(first_day, day - FORTNIGHT * DAY)
    counts = counts_between(connection, start=midnight(earliest), end=midnight(day + DAY))
    in_buffer = amounts_in_buffer(connection, start=midnight(earliest), end=midnight(day + DAY))
    values = values_by_day(connection, counts, in_buffer, first_day=earliest, last_day=day)
    currencies = tuple(sorted({currency for _, currency in values if currency is not None}))
    period = payees_and_lateness_of_period(connection, first_day=first_day, last_day=day)
    places = places_of(connection)
    figures = [
        figure
        for currency in (*currencies, None)
        for figure in compare(
            currency,
            places=None if currency is None else places[currency],
            day=values[day, currency],
            fortnight=[values[day - ago * DAY, currency] for ago in range(1, FORTNIGHT + 1)],
            days=[values[day - ago * DAY, currency] for ago in range(days)],
            period=period.get(currency, {}),
        )
    ]
    return DailyReport(
        day=day,
        first_day=first_day,
        books_begin=first_hour(connection),
        currencies=currencies,
        places=places,
        figures=tuple(figures),
        days=[
            {"day": of_day, "currency": currency, **found}
            for (of_day, currency), found in values.items()
            if of_day >= first_day
        ],
        shares=shares_by_kind(connection, first_day=first_day, day=day),
        counts=_since(counts, "hour", first_day),
        in_buffer=_since(in_buffer, "moment", first_day),
    )


def _since(frame: pd.DataFrame, column: str, day: date) -> pd.DataFrame:
    return frame[frame[column] >= midnight(day)].reset_index(drop=True)
