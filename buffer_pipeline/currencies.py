"""The currencies of the books and the decimal places of each, which never change.

A new currency must be on ISO 4217's list. A currency may leave that list while its holds still wait for
their release, so its places are stored when it is first used, and the stored ones are used from then on.
"""

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.errors import Refused
from buffer_pipeline.money import Places, listed_places


def places_of(connection: AnyConnection) -> Places:
    """Return the places of every currency in the books."""
    return {row["currency"]: row["places"] for row in fetch(connection, "currencies/currencies")}


def coming_in(places: Places, currency: str) -> int:
    """Return the places of a new amount's currency: those of the books, or else those of ISO 4217.

    Raises:
        InvalidInput: neither the books nor the installed list has the currency.
    """
    return places[currency] if currency in places else listed_places(currency)


def bring_in(connection: AnyConnection, incoming: Places, *, known: Places) -> None:
    """Store the currencies that are not in `known`, before any amount in them is written.

    Safe to run again, and at the same time as another transaction that does the same.

    Raises:
        Refused: another transaction added the currency with other places; roll back and retry.
    """
    new = {currency: places for currency, places in incoming.items() if currency not in known}
    if not new:
        return
    fetch(connection, "currencies/add_currencies", currencies=list(new), places=list(new.values()))
    stored = places_of(connection)
    for currency, places in new.items():
        if stored[currency] != places:
            raise Refused(
                f"currency {currency!r}: came in with {stored[currency]} places meanwhile, not {places};"
                " roll back and state it again"
            )
