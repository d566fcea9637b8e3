"""The transactions of an owner's wallets, with what each wallet held after each. Reads only."""

from dataclasses import dataclass
from datetime import datetime

from buffer_pipeline.database import AnyConnection, Row, fetch
from buffer_pipeline.inputs import ID_MAX, require_text, require_time
from buffer_pipeline.reads.everything import Sums, kept_now
from buffer_pipeline.reads.page import LIMIT, Listing, Page, Step, read_page
from buffer_pipeline.shares import ShareKind


@dataclass(frozen=True, kw_only=True)
class StatementLine:
    """A transaction of a wallet. Amounts are minor units, of so many decimal `places`.

    `change_minor` is what it did to the balance, `pending_change_minor` to the pending earnings: a release
    moves its amount from the one to the other. `balance_after_minor` and `pending_earnings_after_minor` are
    what the wallet in this currency held after it, added up from the transactions. `kind`, `job` and
    `title` are those of its hold, None without one.
    """

    transaction_id: int
    type: str
    amount_minor: int
    currency: str
    places: int
    change_minor: int
    pending_change_minor: int
    balance_after_minor: int
    pending_earnings_after_minor: int
    hold_id: int | None
    kind: ShareKind | None
    backjob_id: int | None
    debt_id: int | None
    payout_id: int | None
    reference: str | None
    job: str | None
    title: str | None
    recorded_at: datetime


def statement(
    connection: AnyConnection,
    *,
    owner: str,
    currency: str | None = None,
    as_of: datetime | None = None,
    oldest_first: bool = False,
    limit: int = LIMIT,
    cursor: str | None = None,
) -> Page[StatementLine]:
    """Return a page of the transactions of an owner's wallets, or of the one in `currency`.

    `as_of` leaves out what was recorded after it; an owner without a wallet has no lines. The lines of one
    wallet are written one after the other, so its statement is complete: no line is added before one that
    was shown. Of several currencies, a page is as stable as those of `list_holds`. The time of a deep page
    grows with the number of lines between it and the first page.

    Raises:
        InvalidInput: as `list_holds`.
    """
    require_text("owner", owner)
    if currency is not None:
        require_text("currency", currency)
    until = None if as_of is None else require_time("as_of", as_of)
    listing = Listing(
        name="statement",
        filters={"owner": owner, "currency": currency, "as_of": until},
        limit=limit,
        oldest_first=oldest_first,
        cursor=cursor,
    )

    kept_as = (id(connection), repr(listing.filters), oldest_first)

    def read(key: int, size: int, *, is_summed: bool) -> list[Row]:
        return _rows(
            connection,
            owner=owner,
            currency=currency,
            key=key,
            size=size,
            listing=listing,
            is_summed=is_summed,
        )

    def next_step(key: int, size: int) -> Step[StatementLine]:
        kept = kept_now()
        snapshot, sums = (None, None) if kept is None else kept.sums_at(kept_as, key)
        rows = read(key, size, is_summed=sums is not None)
        now = rows[0]["snapshot"] if rows else None
        # Of several wallets, a line before the page can be committed after it, except in one snapshot.
        if sums is not None and currency is None and now != snapshot:
            rows, sums = read(key, size, is_summed=False), None
        lines, sums_after = _lines(rows, newest=not oldest_first, held=sums or {})
        if kept is not None:
            is_certain = currency is not None or now is not None
            kept.keep_sums(kept_as, now, sums_after if is_certain else {})
        pairs = [
            (line.transaction_id, line if until is None or line.recorded_at <= until else None)
            for line in lines
        ]
        return Step(pairs, pairs[-1][0] if len(pairs) == size else None, len(pairs))

    return read_page(listing, next_step, every_row_matches=until is None)


def _rows(
    connection: AnyConnection,
    *,
    owner: str,
    currency: str | None,
    key: int,
    size: int,
    listing: Listing,
    is_summed: bool,
) -> list[Row]:
    # The lines before the page, to add them up. A first page has none.
    passed_from, passed_to = (1, key) if listing.oldest_first else (key, ID_MAX)
    if key == ID_MAX or is_summed:
        passed_from, passed_to = 1, 0
    return list(
        fetch(
            connection,
            "reads/statement",
            owner=owner,
            currency=currency,
            newest=not listing.oldest_first,
            key=key,
            passed_from=passed_from,
            passed_to=passed_to,
            row_limit=size,
        )
    )


def _lines(rows: list[Row], *, newest: bool, held: Sums) -> tuple[list[StatementLine], dict[int, Sums]]:
    """Return the lines with the running sums of each wallet: backwards from the newest, or forwards.

    `held` are the sums before the first line, of the wallets that had lines. The sums at each line come too.
    An owner has one wallet in each currency.
    """
    held = dict(held)
    sums: dict[int, Sums] = {}
    lines = []
    for row in rows:
        balance, pending = held.get(row["currency"], (row["base_minor"], row["pending_base_minor"]))
        change, pending_change = row["change_minor"], row["pending_change_minor"]
        if newest:
            after = (balance, pending)
            held[row["currency"]] = (balance - change, pending - pending_change)
        else:
            after = (balance + change, pending + pending_change)
            held[row["currency"]] = after
        sums[row["transaction_id"]] = dict(held)
        fields = dict(row)
        for name in ("base_minor", "pending_base_minor", "snapshot"):
            del fields[name]
        fields["kind"] = None if fields["kind"] is None else ShareKind(fields["kind"])
        lines.append(
            StatementLine(**fields, balance_after_minor=after[0], pending_earnings_after_minor=after[1])
        )
    return lines, sums
