"""A day's figures against the fortnight before, and the days up to it. Reads only."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Final

import pandas as pd
from sqlalchemy import Connection

from buffer_pipeline.counts import counts_between, first_hour
from buffer_pipeline.currencies import Places, places_of
from buffer_pipeline.daily_report.curve import amounts_in_buffer
from buffer_pipeline.daily_report.days import DAY, midnight, payees_and_lateness_of_period, values_by_day
from buffer_pipeline.daily_report.figures import Figure, compare
from buffer_pipeline.errors import HourInProgress
from buffer_pipeline.hours import earliest_hour_in_progress
from buffer_pipeline.reports import Rows

FORTNIGHT: Final = 14
"""How many days before it a day is compared with."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DailyReport:
    """What there is to say of a day and of the days from `first_day` to it; whole days in UTC.

    `figures` compare the day with the fortnight before, currency by currency and then over all
    of them. `days` has a row a day and currency of the whole period, with the figures of
    `figures.LABELS`; those over all currencies (`currency` None) have no amounts. `counts` are
    the period's, hour by hour, as `counts_between` has them, `in_buffer` as
    `amounts_in_buffer` has it. Amounts are minor units, and `places` what the books have of each currency.
    """

    day: date
    first_day: date
    books_begin: datetime | None
    currencies: tuple[str, ...]
    places: Places
    figures: tuple[Figure, ...]
    days: Rows
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
        """The figures without those over all currencies where there is one currency only."""
        return [figure for figure in self.figures if figure.currency is not None or len(self.currencies) != 1]

    @property
    def table(self) -> list[dict[str, str]]:
        """The shown figures as text: currency, figure, day, fortnight_mean, change, period."""
        return [figure.texts() for figure in self.shown_figures]

    @cached_property
    def plots(self) -> dict[str, bytes]:
        """PNG pictures of the period by name: `released`, `in_buffer`, `lateness`; drawn when asked for."""
        from buffer_pipeline.daily_report.plots import draw  # noqa: PLC0415 - matplotlib takes seconds

        return draw(self)

    @property
    def plot_titles(self) -> dict[str, str]:
        """What each picture shows, by its name, for those who do not see it."""
        days = f"{self.first_day} to {self.day} (UTC)"
        return {
            "released": f"Amount released by currency, {days}",
            "in_buffer": f"Amount in the buffer by state and currency, {days}",
            "lateness": f"Median and longest lateness of releases by currency, {days}",
        }


def last_day_over(connection: Connection, *, now: datetime) -> date:
    """Return yesterday (UTC), or the day before while a transaction still writes into yesterday.

    What is read by a later statement holds all of that day.

    Raises:
        HourInProgress: a transaction still writes into an hour before yesterday. So old a time is
            somebody's slip more often than not: no long gone day is taken for the last one.
    """
    yesterday = now.astimezone(UTC).date() - DAY
    in_progress = earliest_hour_in_progress(connection)
    if in_progress is None or in_progress >= midnight(yesterday + DAY):
        return yesterday
    if in_progress < midnight(yesterday):
        raise HourInProgress(in_progress)
    return yesterday - DAY


def daily_report(connection: Connection, *, day: date, days: int = FORTNIGHT + 1) -> DailyReport:
    """Report a day against the fortnight before it, and the `days` that end with it.

    In the fortnight's mean a day without anything counts as zero, also before the books began;
    a mean lateness is over the days that have one. Payees and the median lateness are from the
    transactions of the whole day, all else but the buffer's amounts from the counts of its
    hours. A day that is not over is reported as far as it has come.
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
        counts=_since(counts, "hour", first_day),
        in_buffer=_since(in_buffer, "moment", first_day),
    )


def _since(frame: pd.DataFrame, column: str, day: date) -> pd.DataFrame:
    return frame[frame[column] >= midnight(day)].reset_index(drop=True)
