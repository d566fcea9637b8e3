"""Figures and rows as Dagster's metadata: what plots, what is exact, what is shown as a table."""

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import dagster as dg

from buffer_pipeline.currencies import NO_PLACES, Places, with_amounts
from buffer_pipeline.money import format_amount

ROWS_SHOWN_MAX: Final = 100


def amount_metadata(amounts_minor: Mapping[str, int], places: Places) -> dict[str, Any]:
    """Return `amount_<CUR>` a currency for plots, and `amounts` as exact text.

    Dagster plots floats and ints only. These are for the eye and never read back as money: the
    exact amounts stand in the text and in the books.
    """
    exact = {
        currency: format_amount(amount_minor, places[currency])
        for currency, amount_minor in sorted(amounts_minor.items())
    }
    return {
        # The text first: the page of a run cuts an event behind its first lines.
        "amounts": amounts_text(amounts_minor, places),
        **{f"amount_{currency}": dg.MetadataValue.float(float(amount)) for currency, amount in exact.items()},
    }


def amounts_text(amounts_minor: Mapping[str, int], places: Places) -> str:
    """Return the exact amounts in one line, such as `1000.00 PHP, 20 JPY`."""
    return (
        ", ".join(
            f"{format_amount(minor, places[currency])} {currency}"
            for currency, minor in sorted(amounts_minor.items())
            if minor
        )
        or "none"
    )


def table_metadata(
    name: str, rows: Sequence[Mapping[str, Any]], places: Places = NO_PLACES
) -> dict[str, Any]:
    """Return the first rows as a table under `name`; nothing when there is no row.

    Amounts are shown as people write them: `amount_minor` 100050 with `currency` PHP is `amount` 1000.50.
    Where rows have no currency, or none of `places`, the name of the column goes on saying that it has
    minor units.
    """
    if not rows:
        return {}
    shown = rows[:ROWS_SHOWN_MAX]
    if all(row.get("currency") in places for row in shown):
        shown = [with_amounts(row, places, row["currency"]) for row in shown]
    records = [dg.TableRecord({column: _cell(value) for column, value in row.items()}) for row in shown]
    return {name: dg.MetadataValue.table(records)}


def text_of(value: dg.MetadataValue[Any]) -> str:
    """Return a figure of an event's metadata in one line: text, a number, or a moment."""
    if isinstance(value, dg.TimestampMetadataValue):
        return datetime.fromtimestamp(value.value, UTC).isoformat(sep=" ", timespec="seconds")
    return str(value.value)


def picture_metadata(pictures: Mapping[str, bytes], titles: Mapping[str, str]) -> dict[str, Any]:
    """Return PNG pictures, shown in place, each with what it shows for those who do not see it."""
    return {
        name: dg.MetadataValue.md(
            f"![{titles[name]}](data:image/png;base64,{base64.b64encode(png).decode('ascii')})"
        )
        for name, png in pictures.items()
    }


def _cell(value: object) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, Decimal):  # A sum of bigints, so a whole number.
        return int(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value if isinstance(value, int | float) else str(value)
