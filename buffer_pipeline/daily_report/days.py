"""The figures of each day, by currency and over all of them."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

import pandas as pd
from sqlalchemy import Connection

from buffer_pipeline.daily_report.figures import AT_THE_END, LABELS, OVERALL, SUMMED, Value
from buffer_pipeline.database import fetch

DAY: Final = timedelta(days=1)

Values = dict[str, Value]
ByDay = dict[tuple[date, str | None], Values]
"""Figures by day and currency; None stands for all currencies, which have no amounts."""


def midnight(day: date) -> datetime:
    """Return when a day begins, in UTC."""
    return datetime.combine(day, time(), tzinfo=UTC)


def values_by_day(
    connection: Connection,
    counts: pd.DataFrame,
    in_buffer: pd.DataFrame,
    *,
    first_day: date,
    last_day: date,
) -> ByDay:
    """Return the figures of every day from `first_day` to `last_day`; zero where nothing happened.

    From the counts of the hours, the amounts at the days' ends, and the transactions for what
    neither of them has. Each day has every currency that any of the three has: they need not
    agree, since what is written late into a counted hour is not in its counts.
    """
    since, until = midnight(first_day), midnight(last_day + DAY)
    of_transactions = _payees_and_lateness(connection, since=since, until=until, span=DAY)
    currencies = sorted(
        {*counts["currency"], *in_buffer["currency"]}
        | {currency for _, currency, _ in of_transactions if currency is not None}
    )
    nothing = {name: None if name.endswith("_seconds") else 0 for name in LABELS}
    values: ByDay = {
        (first_day + number * DAY, currency): {
            name: nothing[name] for name in LABELS if currency is not None or name in OVERALL
        }
        for number in range((last_day - first_day).days + 1)
        for currency in (*currencies, None)
    }
    by_day = counts.assign(day=counts["hour"].dt.date)
    aggregates: dict[str, Any] = {**dict.fromkeys(SUMMED, "sum"), "lateness_max_seconds": "max"}
    for key in (["day", "currency"], ["day"]):
        for row in by_day.groupby(key, as_index=False).agg(aggregates).to_dict("records"):
            of_day = values[row["day"], row.get("currency")]
            of_day.update({name: row[name] for name in SUMMED if name in of_day})
            if not pd.isna(row["lateness_max_seconds"]):
                of_day["lateness_max_seconds"] = row["lateness_max_seconds"]
    for row in in_buffer[in_buffer["moment"].dt.hour == 0].to_dict("records"):
        of_day = values.get((row["moment"].date() - DAY, row["currency"]), {})
        of_day.update({name: row[name] for name in AT_THE_END})
    for begins_on, currency, found in of_transactions:
        values[begins_on, currency].update(found)
    return values


def payees_and_lateness_of_period(
    connection: Connection, *, first_day: date, last_day: date
) -> dict[str | None, Values]:
    """Return the payees and the median lateness of all the days together, by currency.

    They cannot be had from those of the days. A currency without a release is left out.
    """
    since, until = midnight(first_day), midnight(last_day + DAY)
    rows = _payees_and_lateness(connection, since=since, until=until, span=until - since)
    return {currency: found for _, currency, found in rows}


def _payees_and_lateness(
    connection: Connection, *, since: datetime, until: datetime, span: timedelta
) -> list[tuple[date, str | None, Values]]:
    rows = fetch(connection, "report/payees_and_lateness", since=since, until=until, span=span)
    return [
        (
            row["begins_at"].astimezone(UTC).date(),
            row["currency"],
            {"payees": row["payees"], "lateness_median_seconds": row["lateness_median_seconds"]},
        )
        for row in rows
    ]
