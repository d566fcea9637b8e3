"""Figures and rows as Dagster's metadata: numbers for plots, exact text, and tables."""

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import dagster as dg

from buffer_pipeline.money import NO_PLACES, Places, format_amount, with_amounts
from buffer_pipeline.shares import ShareKind

ROWS_SHOWN_MAX: Final = 100


def amount_metadata(
    amounts_minor: Mapping[str, int], places: Places, *, of: str | None = None
) -> dict[str, Any]:
    """Return `amount_<CUR>` for each currency, for plots, and `amounts` as exact text.

    Amounts `of` something have its name: `<of>_<CUR>` and `<of>`.

    Dagster plots only floats and ints. The floats are never read back as money: the exact amounts are in the
    text and in the books.
    """
    exact = {
        currency: format_amount(amount_minor, places[currency])
        for currency, amount_minor in sorted(amounts_minor.items())
    }
    return {
        # The text comes first, because the page of a run shows only the first lines of an event.
        of or "amounts": amounts_text(amounts_minor, places),
        **{
            f"{of or 'amount'}_{currency}": dg.MetadataValue.float(float(amount))
            for currency, amount in exact.items()
        },
    }


def share_metadata(shares_minor: Mapping[tuple[ShareKind, str], int], places: Places) -> dict[str, Any]:
    """Return `released_fee`, `released_tax` and `released_reserve` as `amount_metadata` does.

    `shares_minor` is (kind, currency) -> minor units. A kind that it lacks is left out.
    """
    by_kind: dict[str, dict[str, int]] = {}
    for (kind, currency), minor in sorted(shares_minor.items()):
        by_kind.setdefault(kind, {})[currency] = minor
    return {
        name: value
        for kind, amounts_minor in by_kind.items()
        for name, value in amount_metadata(amounts_minor, places, of=f"released_{kind.lower()}").items()
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
    """Return the first rows as a table under `name`; an empty dict if there are no rows.

    Amounts are shown in major units: `amount_minor` 100050 with `currency` PHP is `amount` 1000.50. If the
    rows have no currency, or one that is not in `places`, they stay in minor units and keep the name
    `amount_minor`.
    """
    if not rows:
        return {}
    shown = rows[:ROWS_SHOWN_MAX]
    if all(row.get("currency") in places for row in shown):
        shown = [with_amounts(row, places, row["currency"]) for row in shown]
    records = [dg.TableRecord({column: _cell(value) for column, value in row.items()}) for row in shown]
    return {name: dg.MetadataValue.table(records)}


def text_of(value: dg.MetadataValue[Any]) -> str:
    """Return a metadata value in one line: a text, a number, or a time."""
    if isinstance(value, dg.TimestampMetadataValue):
        return datetime.fromtimestamp(value.value, UTC).isoformat(sep=" ", timespec="seconds")
    return str(value.value)


def picture_metadata(pictures: Mapping[str, bytes], titles: Mapping[str, str]) -> dict[str, Any]:
    """Return SVG pictures as inline images, each with its title as the alternative text."""
    return {
        name: dg.MetadataValue.md(
            f"![{titles[name]}](data:image/svg+xml;base64,{base64.b64encode(svg).decode('ascii')})"
        )
        for name, svg in pictures.items()
    }


def _cell(value: object) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, Decimal):  # A sum of bigints is a whole number.
        return int(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value if isinstance(value, int | float) else str(value)
