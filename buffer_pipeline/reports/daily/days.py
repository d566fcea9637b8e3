"""The figures of each day, by currency and over all of them."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd
from sqlalchemy import Connection

from buffer_pipeline.database import fetch
from buffer_pipeline.reports.complete_hours import DAY, midnight
from buffer_pipeline.reports.daily.figures import AT_THE_END, LABELS, OVERALL, SUMMED, Value

Values = dict[str, Value]
ByDay = dict[tuple[date, str | None], Values]
"""Figures by day and currency. The currency None means all currencies together, which have no amounts."""


def values_by_day(
    connection: Connection,
    counts: pd.DataFrame,
    in_buffer: pd.DataFrame,
    *,
    first_day: date,
    last_day: date,
) -> ByDay:
    """Return the figures of every day from `first_day` to `last_day`; 0 if nothing happened.

    They come from the hourly counts, from the amounts at the end of each day, and for the other figures from
    the transactions. Every day has each currency that any of these has. They may differ, because a
    transaction that is written late into a counted hour is not in its count.
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
    """Return the payees and the median lateness of all days together, by currency.

    They cannot be computed from the figures of the days. A currency without a release is left out.
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
