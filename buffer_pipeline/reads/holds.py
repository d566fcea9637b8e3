"""Find a hold, and list holds. Reads only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from buffer_pipeline.database import AnyConnection, Row, fetch
from buffer_pipeline.errors import InvalidInput, NotFound
from buffer_pipeline.hold import HoldState
from buffer_pipeline.hold_metadata import MetadataValue, read_metadata, search_texts
from buffer_pipeline.inputs import require_id, require_text, require_time
from buffer_pipeline.reads.choices import choice
from buffer_pipeline.reads.page import LIMIT, Listing, Page, Step, read_page
from buffer_pipeline.reads.walks import walk_of
from buffer_pipeline.rules import STANDARD
from buffer_pipeline.shares import ShareKind


class Role(StrEnum):
    """What an owner is of a hold: who earns it, or who paid it."""

    PAYEE = "PAYEE"
    PAYER = "PAYER"


@dataclass(frozen=True, kw_only=True)
class Hold:
    """A hold as it is now. Amounts are minor units of `currency`, which has so many decimal `places`.

    `amount_minor` was held at first. `refunded_minor` of it was refunded to the payer, `released_minor` to
    the payee, and `left_minor` is still in the buffer. `kind` is PAYEE for an earning without shares.
    `earning_id` is the first hold of the earning that a share is of, and None for that hold itself, which
    has the whole earning as `earning_minor` if there are others. `rule` and `rule_version` name its hold
    rule; `standard` without a version is the settings' defaults. `metadata` is {} if there is none.
    """

    hold_id: int
    reference: str
    job: str
    title: str
    kind: ShareKind
    earning_id: int | None
    earning_minor: int | None
    payee: str
    payer: str
    amount_minor: int
    refunded_minor: int
    released_minor: int
    left_minor: int
    currency: str
    places: int
    state: HoldState
    held_at: datetime
    original_release_date: datetime
    release_date: datetime
    settled_at: datetime | None
    metadata: Mapping[str, MetadataValue]
    rule: str
    rule_version: int | None


def find_hold(connection: AnyConnection, *, hold_id: int | None = None, reference: str | None = None) -> Hold:
    """Return a hold by its id, or the own hold of the earning with this reference.

    Raises:
        InvalidInput: both or neither are given, or a value cannot be accepted.
        NotFound: no such hold.
    """
    return hold_of(find_rows(connection, "reads/find_hold", hold_id=hold_id, reference=reference)[0])


def find_rows(
    connection: AnyConnection, statement: str, *, hold_id: int | None, reference: str | None
) -> Sequence[Row]:
    """Return the rows of a statement that reads one hold, by its id or its reference.

    Raises:
        InvalidInput, NotFound: as `find_hold`.
    """
    if (hold_id is None) == (reference is None):
        raise InvalidInput("find_hold: needs a hold_id or a reference, one of them")
    if hold_id is not None:
        require_id("hold", hold_id)
    else:
        require_text("reference", reference or "")
    rows = fetch(connection, statement, hold_id=hold_id, reference=reference)
    if not rows:
        raise NotFound(
            f"hold {hold_id}: does not exist"
            if reference is None
            else f"reference {reference!r}: no hold has it",
            hold_id=hold_id,
            reference=reference,
        )
    return rows


def list_holds(
    connection: AnyConnection,
    *,
    owner: str | None = None,
    role: Role | str = Role.PAYEE,
    job: str | None = None,
    state: HoldState | str | None = None,
    kind: ShareKind | str | None = None,
    due_by: datetime | None = None,
    held_since: datetime | None = None,
    held_before: datetime | None = None,
    metadata: Mapping[str, str] | None = None,
    oldest_first: bool = False,
    limit: int = LIMIT,
    cursor: str | None = None,
) -> Page[Hold]:
    """Return a page of the holds that match every given filter, in the order in which they were added.

    `owner` is the payee, or the payer if `role` says so. `due_by` finds what a release takes at that time:
    BUFFERED, with a release date at or before it. `held_since` is the earliest `held_at`, and `held_before`
    is after the latest. A hold matches `metadata` if its own has each of these keys, with this text or with
    the number, boolean or null that is written so: "17" finds "17" and 17.

    Pass `next_cursor` of a page as `cursor`, with the same filters, for the page after it. No hold is in two
    pages. A hold that was committed before the first page was read, and matches whenever a page is read, is
    in one. A hold that is added meanwhile may be in a page or not; newest first, it is in none unless the
    transaction that added it had begun before.

    Raises:
        InvalidInput: a value that cannot be accepted, a limit that is not from 1 to 1,000, or a cursor that
            no page of this list, with these filters, has returned.
    """
    role = choice("role", role, Role)
    state = None if state is None else choice("state", state, HoldState)
    kind = None if kind is None else choice("kind", kind, ShareKind)
    for name, text in (("owner", owner), ("job", job)):
        if text is not None:
            require_text(name, text)
    wanted = [search_texts(key, value) for key, value in (metadata or {}).items()]
    filters = {
        "job": job,
        "kind": kind,
        "state": state,
        "payee": owner if role is Role.PAYEE else None,
        "payer": owner if role is Role.PAYER else None,
        "held_since": None if held_since is None else require_time("held_since", held_since),
        "held_before": None if held_before is None else require_time("held_before", held_before),
        "due_by": None if due_by is None else require_time("due_by", due_by),
    }
    listing = Listing(
        name="list_holds",
        filters={
            "owner": owner,
            "role": None if owner is None else str(role),
            "metadata": sorted(metadata.items()) if metadata else None,
            **{name: filters[name] for name in ("job", "held_since", "held_before", "due_by")},
            "state": None if state is None else str(state),
            "kind": None if kind is None else str(kind),
        },
        limit=limit,
        oldest_first=oldest_first,
        cursor=cursor,
    )
    walk = walk_of(connection, filters=filters, metadata=wanted, newest=not oldest_first)

    def next_step(key: int, size: int) -> Step[Hold]:
        rows, through, examined = walk.rows(key, size, is_first_page=cursor is None)
        pairs = [(row["key"], None if row["hold_id"] is None else hold_of(row)) for row in rows]
        return Step(pairs, through, examined)

    return read_page(listing, next_step, every_row_matches=walk.every_row_matches)


def hold_of(row: Row) -> Hold:
    """Return the hold of a row that has the columns of `buffer.read_holds`."""
    amount_minor, refunded_minor, released_minor = (
        row["amount_minor"],
        row["refunded_minor"],
        row["released_minor"],
    )
    return Hold(
        hold_id=row["hold_id"],
        reference=row["reference"],
        job=row["job"],
        title=row["title"],
        kind=ShareKind(row["kind"]),
        earning_id=row["earning_id"],
        earning_minor=row["earning_minor"],
        payee=row["payee"],
        payer=row["payer"],
        amount_minor=amount_minor,
        refunded_minor=refunded_minor,
        released_minor=released_minor,
        left_minor=amount_minor - refunded_minor - released_minor,
        currency=row["currency"],
        places=row["places"],
        state=HoldState(row["state"]),
        held_at=row["held_at"],
        original_release_date=row["original_release_date"],
        release_date=row["release_date"],
        settled_at=row["settled_at"],
        metadata=read_metadata(row["metadata"]),
        rule=row["rule"] or STANDARD,
        rule_version=row["rule_version"],
    )
