"""Find a wallet, and list wallets. Reads only."""

from dataclasses import dataclass

from buffer_pipeline.database import AnyConnection
from buffer_pipeline.errors import NotFound
from buffer_pipeline.inputs import require_text
from buffer_pipeline.reads.page import LIMIT, LIMIT_MAX, Listing, Page
from buffer_pipeline.reads.rows import list_rows


@dataclass(frozen=True, kw_only=True)
class Wallet:
    """An owner's money in one currency. Amounts are minor units: the currency has so many decimal `places`.

    `balance_minor` is available, `pending_earnings_minor` waits in the buffer, `debt_minor` is owed.
    `is_frozen` is True while the owner is frozen.
    """

    wallet_id: int
    owner: str
    currency: str
    places: int
    balance_minor: int
    pending_earnings_minor: int
    debt_minor: int
    is_frozen: bool


def find_wallet(connection: AnyConnection, *, owner: str, currency: str) -> Wallet:
    """Return an owner's wallet in a currency.

    Raises:
        InvalidInput: a value cannot be accepted.
        NotFound: the owner has no wallet in this currency.
    """
    require_text("owner", owner)
    require_text("currency", currency)
    found = list_wallets(connection, owner=owner, currency=currency, limit=LIMIT_MAX).items
    if not found:
        raise NotFound(f"wallet of {owner!r}: does not exist in {currency}", owner=owner)
    return found[0]


def list_wallets(
    connection: AnyConnection,
    *,
    owner: str | None = None,
    currency: str | None = None,
    oldest_first: bool = False,
    limit: int = LIMIT,
    cursor: str | None = None,
) -> Page[Wallet]:
    """Return a page of the wallets that match every given filter, in the order in which they were made.

    An owner has one wallet for each currency, so `owner` finds few. Pages are as stable as those of
    `list_holds`.

    Raises:
        InvalidInput: as `list_holds`.
    """
    for name, text in (("owner", owner), ("currency", currency)):
        if text is not None:
            require_text(name, text)
    listing = Listing(
        name="list_wallets",
        filters={"owner": owner, "currency": currency},
        limit=limit,
        oldest_first=oldest_first,
        cursor=cursor,
    )
    return list_rows(
        connection,
        listing,
        walk=("walk_wallets", {}) if owner is None else ("walk_wallets_of_owner", {"owner": owner}),
        rows=("wallets", {"currency": currency}),
        id_name="wallet_id",
        make=lambda row: Wallet(**row),
        every_row_matches=currency is None,
    )
