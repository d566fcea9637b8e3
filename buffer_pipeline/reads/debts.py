"""List debts. Reads only."""

from dataclasses import dataclass
from datetime import datetime

from buffer_pipeline.database import AnyConnection
from buffer_pipeline.inputs import require_text
from buffer_pipeline.reads.page import LIMIT, Listing, Page
from buffer_pipeline.reads.rows import list_rows


@dataclass(frozen=True, kw_only=True)
class Debt:
    """What an owner owes after money was taken back. Amounts are minor units, of so many decimal `places`.

    `owner` owes it, for the hold that a claw-back took from. `creditor` None is a bank, which has taken the
    money already. `by` and `reason` are those of the claw-back; `forgiven_by` and `forgiving_reason` say who
    has written off what was outstanding. `closed_at` is None while something is outstanding.
    """

    debt_id: int
    clawback_id: int
    hold_id: int
    owner: str
    creditor: str | None
    currency: str
    places: int
    amount_minor: int
    outstanding_minor: int
    opened_at: datetime
    closed_at: datetime | None
    by: str
    reason: str
    forgiven_by: str | None
    forgiving_reason: str | None


def list_debts(
    connection: AnyConnection,
    *,
    owner: str | None = None,
    only_open: bool = False,
    oldest_first: bool = False,
    limit: int = LIMIT,
    cursor: str | None = None,
) -> Page[Debt]:
    """Return a page of debts: all, those of an owner, or only those of which something is outstanding.

    They are in the order in which they were opened. Pages are as stable as those of `list_holds`.

    Raises:
        InvalidInput: as `list_holds`.
    """
    if owner is not None:
        require_text("owner", owner)
    listing = Listing(
        name="list_debts",
        filters={"owner": owner, "only_open": only_open or None},
        limit=limit,
        oldest_first=oldest_first,
        cursor=cursor,
    )
    walk: tuple[str, dict[str, object]] = ("walk_open_debts" if only_open else "walk_debts", {})
    if owner is not None:
        walk = ("walk_debts_of_owner", {"owner": owner})
    return list_rows(
        connection,
        listing,
        walk=walk,
        rows=("debts", {"only_open": only_open}),
        id_name="debt_id",
        make=lambda row: Debt(**row),
        every_row_matches=not only_open or owner is None,
    )
