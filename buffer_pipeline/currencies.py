"""The currencies of the books and the decimal places of each, which never change once they are there.

ISO 4217's list says what may come in anew. Currencies leave that list, and their holds are still to be
released; so a currency's places are stored when it is first used, and count from then on.
"""

from collections.abc import Mapping
from typing import Any, Final

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.errors import Refused
from buffer_pipeline.money import format_amount, listed_places

Places = Mapping[str, int]
"""Decimal places by currency, of one database's books."""


def places_of(connection: AnyConnection) -> Places:
    """Return the places of every currency in the books."""
    return {row["currency"]: row["places"] for row in fetch(connection, "currencies")}


def coming_in(places: Places, currency: str) -> int:
    """Return the places of an amount that comes in: by the books, by ISO 4217 where they don't have it.

    Raises:
        InvalidInput: neither the books nor the installed list has the currency.
    """
    return places[currency] if currency in places else listed_places(currency)


def bring_in(connection: AnyConnection, incoming: Places, *, known: Places) -> None:
    """Store the currencies that are not `known` to be in the books, before anything is written in them.

    Safe to run again, and beside another transaction that does the same.

    Raises:
        Refused: another transaction added the currency meanwhile, with other places; roll back and retry.
    """
    new = {currency: places for currency, places in incoming.items() if currency not in known}
    if not new:
        return
    fetch(connection, "add_currencies", currencies=list(new), places=list(new.values()))
    stored = places_of(connection)
    for currency, places in new.items():
        if stored[currency] != places:
            raise Refused(
                f"currency {currency!r}: came in with {stored[currency]} places meanwhile, not {places};"
                " roll back and state it again"
            )


NO_PLACES: Final[Places] = {}

_MINOR: Final = "_minor"


def with_amounts(row: Mapping[str, Any], places: Places, currency: object) -> dict[str, Any]:
    """Return the row with its minor units as amounts in `currency`: `amount_minor` 1050 is `amount` "10.50".

    Where the currency is not known, as one that only broken books have, the names go on saying that these
    are minor units.
    """
    if not isinstance(currency, str) or currency not in places:
        return dict(row)
    return {
        name.removesuffix(_MINOR): format_amount(int(value), places[currency])
        if name.endswith(_MINOR) and value is not None
        else value
        for name, value in row.items()
    }
