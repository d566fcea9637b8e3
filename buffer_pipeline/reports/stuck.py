"""Holds that have been frozen for too long, and frozen owners. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    DateTime,
    Select,
    Text,
    and_,
    case,
    cast,
    func,
    null,
    or_,
    select,
    union_all,
)

from buffer_pipeline.hold import HoldState
from buffer_pipeline.reports.holds import select_holds
from buffer_pipeline.reports.rows import Rows, rows_of
from buffer_pipeline.tables import hold_freeze, hold_status, owner_freeze, unsettled_hold, wallet


@dataclass(frozen=True, kw_only=True)
class Stuck:
    """How many holds are stuck, and a number that differs for another set of holds."""

    holds: int
    fingerprint: int


def count_stuck(connection: Connection, *, now: datetime, older_than: timedelta) -> Stuck:
    """Count the holds that are frozen for longer than `older_than`, or FROZEN without an open freeze."""
    stuck = _stuck(now - older_than).subquery()
    row = connection.execute(
        select(
            func.count(),
            # Identifies the set of holds. Listing 100,000 ids would take as long as everything else.
            func.coalesce(func.bit_xor(func.hashint8extended(stuck.c.hold_id, 0)), 0),
        )
    ).one()
    return Stuck(holds=row[0], fingerprint=row[1])


def stuck_holds(
    connection: Connection,
    *,
    now: datetime,
    older_than: timedelta,
    hold_ids: Sequence[int] | None = None,
    limit: int | None = None,
) -> Rows:
    """Return holds that are frozen for longer than `older_than`, the longest first.

    A hold that only its owner's freeze covers is left out: `stuck_owners` has those, in one row for all. The
    shares of an earning that only one freeze of the earning covers are one row, of the first of them: `holds`
    is their number, otherwise 1, and `left_minor` is what is left in all of them.

    Before them come all holds that are FROZEN without an open freeze; their `kinds` are empty. No verb makes
    such a hold. Only `freeze_hold` and then `unfreeze_hold` resolve it.

    `frozen_since` is when the oldest open freeze was opened. Without one, it is when the last freeze was
    closed, or when the hold began. `hold_ids` limits the result to these holds.
    """
    frozen = _stuck(now - older_than)
    frozen = frozen.having(frozen.selected_columns.owner_freeze_id.is_(None))
    if hold_ids is not None:
        frozen = frozen.having(frozen.selected_columns.hold_id.in_(hold_ids))
    each = frozen.subquery()
    first = hold_freeze.alias("first")
    listed_id = func.coalesce(first.c.hold_id, each.c.hold_id)
    # The limit comes first: many holds may be stuck, and few are shown.
    stuck = (
        select(
            listed_id.label("hold_id"),
            func.min(each.c.frozen_since).label("frozen_since"),
            func.count().label("holds"),
            func.coalesce(func.sum(unsettled_hold.c.amount_minor), 0).label("left_minor"),
        )
        .select_from(each)
        # A freeze of the first share that a refund has closed cannot represent the others.
        .outerjoin(first, and_(first.c.freeze_id == each.c.earning_freeze_id, first.c.closed_at.is_(None)))
        .outerjoin(unsettled_hold, unsettled_hold.c.hold_id == each.c.hold_id)
        .group_by(listed_id)
        .order_by(func.min(each.c.frozen_since).nulls_first(), listed_id)
        .limit(limit)
        .subquery()
    )
    last_closed = (
        select(func.max(hold_freeze.c.closed_at))
        .where(hold_freeze.c.hold_id == stuck.c.hold_id)
        .scalar_subquery()
    )
    kinds = (
        select(func.coalesce(func.array_agg(hold_freeze.c.kind.distinct()), cast([], ARRAY(Text))))
        .where(hold_freeze.c.hold_id == stuck.c.hold_id, hold_freeze.c.closed_at.is_(None))
        .scalar_subquery()
    )
    rows = rows_of(
        connection,
        select_holds()
        .add_columns(
            func.coalesce(stuck.c.frozen_since, last_closed, hold_status.c.held_at).label("frozen_since"),
            kinds.label("kinds"),
            stuck.c.holds,
            stuck.c.left_minor.label("all_left_minor"),
        )
        .join(stuck, stuck.c.hold_id == hold_status.c.hold_id)
        .order_by(stuck.c.frozen_since.nulls_first(), hold_status.c.hold_id),
    )
    for row in rows:
        row["left_minor"] = int(row.pop("all_left_minor"))
    return rows


def stuck_owners(
    connection: Connection,
    *,
    now: datetime,
    older_than: timedelta,
    owner_freeze_ids: Sequence[int] | None = None,
    limit: int | None = None,
) -> Rows:
    """Return the owners whose freeze has kept holds frozen for longer than `older_than`, the longest first.

    A row for each owner and currency: the number of these `holds`, which no other freeze covers, and what is
    left in them. `frozen_since` is when the owner was frozen. `owner_freeze_ids` limits the result to these.
    """
    stuck = _stuck(now - older_than).subquery()
    query = (
        select(
            owner_freeze.c.owner_freeze_id,
            owner_freeze.c.owner,
            owner_freeze.c.kind,
            owner_freeze.c.opened_by,
            owner_freeze.c.reason,
            owner_freeze.c.opened_at.label("frozen_since"),
            func.count().label("holds"),
            func.sum(unsettled_hold.c.amount_minor).label("left_minor"),
            unsettled_hold.c.currency,
        )
        .select_from(stuck)
        .join(owner_freeze, owner_freeze.c.owner_freeze_id == stuck.c.owner_freeze_id)
        .join(unsettled_hold, unsettled_hold.c.hold_id == stuck.c.hold_id)
        .group_by(owner_freeze.c.owner_freeze_id, unsettled_hold.c.currency)
        .order_by(owner_freeze.c.opened_at, owner_freeze.c.owner_freeze_id, unsettled_hold.c.currency)
        .limit(limit)
    )
    if owner_freeze_ids is not None:
        query = query.where(stuck.c.owner_freeze_id.in_(owner_freeze_ids))
    return rows_of(connection, query)


def frozen_owners(connection: Connection) -> Rows:
    """Return the owners who are frozen now, the longest first, with the number of their frozen `holds`."""
    holds = (
        select(func.count())
        .select_from(unsettled_hold)
        .join(wallet, wallet.c.wallet_id == unsettled_hold.c.payee_wallet_id)
        .where(wallet.c.owner_freeze_id == owner_freeze.c.owner_freeze_id)
        .scalar_subquery()
    )
    return rows_of(
        connection,
        select(
            owner_freeze.c.owner_freeze_id,
            owner_freeze.c.owner,
            owner_freeze.c.kind,
            owner_freeze.c.opened_by,
            owner_freeze.c.reason,
            owner_freeze.c.payee_text,
            owner_freeze.c.opened_at,
            holds.label("holds"),
        )
        .where(owner_freeze.c.closed_at.is_(None))
        .order_by(owner_freeze.c.opened_at, owner_freeze.c.owner_freeze_id),
    )


def _stuck(before: datetime) -> Select[Any]:
    """Return the holds with an open freeze from before `before`, and those FROZEN without one (NULL).

    `owner_freeze_id` is the owner's freeze if no other freeze covers the hold, otherwise NULL; and so is
    `earning_freeze_id` the freeze of the earning that the hold's belong to.
    """
    # Grouped rather than joined: linear with any plan.
    opened = select(
        hold_freeze.c.hold_id,
        hold_freeze.c.opened_at,
        hold_freeze.c.owner_freeze_id,
        hold_freeze.c.earning_freeze_id,
    ).where(hold_freeze.c.closed_at.is_(None))
    frozen = select(
        unsettled_hold.c.hold_id,
        cast(null(), DateTime(timezone=True)),
        cast(null(), BigInteger),
        cast(null(), BigInteger),
    ).where(unsettled_hold.c.state == HoldState.FROZEN)
    either = union_all(opened, frozen).subquery()
    since = func.min(either.c.opened_at)
    freezes = func.count(either.c.opened_at)
    is_only_the_owners = freezes == func.count(either.c.owner_freeze_id)
    is_one_of_the_earning = (freezes == 1) & (func.count(either.c.earning_freeze_id) == 1)
    return (
        select(
            either.c.hold_id,
            since.label("frozen_since"),
            case((is_only_the_owners, func.max(either.c.owner_freeze_id))).label("owner_freeze_id"),
            case((is_one_of_the_earning, func.max(either.c.earning_freeze_id))).label("earning_freeze_id"),
        )
        .group_by(either.c.hold_id)
        .having(or_(since < before, since.is_(None)))
    )
