"""What stands in the books, for people and reports. Reads only.

Rows are plain dicts; amounts are minor units with their currency beside them, times UTC.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    DateTime,
    Double,
    Select,
    Text,
    case,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    union_all,
)

from buffer_pipeline.database import fetch
from buffer_pipeline.errors import NotFound
from buffer_pipeline.hold import UNSETTLED, HoldState
from buffer_pipeline.inputs import require_id
from buffer_pipeline.tables import (
    backjob,
    batch,
    hold,
    hold_freeze,
    hold_status,
    hourly_release_count,
    transaction,
    unsettled_hold,
    wallet,
)

Rows = list[dict[str, Any]]

_payee = wallet.alias("payee")
_payer = wallet.alias("payer")


@dataclass(frozen=True, kw_only=True)
class Due:
    """What is due by a moment: holds, amounts by currency in minor units, the oldest date."""

    holds: int
    amounts_minor: dict[str, int]
    oldest_release_date: datetime | None


def due_holds(connection: Connection, *, due_by: datetime) -> Due:
    """Count what a release run with this cut-off would release."""
    rows = connection.execute(
        select(
            unsettled_hold.c.currency,
            func.count(),
            func.sum(unsettled_hold.c.amount_minor),
            func.min(unsettled_hold.c.release_date),
        )
        .where(*_is_due(due_by))
        .group_by(unsettled_hold.c.currency)
        .order_by(unsettled_hold.c.currency)
    ).all()
    return Due(
        holds=sum(row[1] for row in rows),
        amounts_minor={row[0]: int(row[2]) for row in rows},
        oldest_release_date=min((row[3] for row in rows), default=None),
    )


@dataclass(frozen=True, kw_only=True)
class Lateness:
    """Seconds from the release date to the release, over what was released; None where nothing was."""

    median_seconds: float | None
    max_seconds: float | None


def released_from(connection: Connection, *, source: str, since: datetime) -> tuple[Lateness, Rows]:
    """Return how late what `source` has released since a moment was, and the latest twenty of it.

    A row is a hold with the `amount_minor` that was credited, its `release_date` and `released_at`.
    """
    lines = (
        select(
            hold.c.hold_id,
            hold.c.job,
            _payee.c.owner.label("payee"),
            transaction.c.amount_minor,
            transaction.c.currency,
            transaction.c.release_date,
            transaction.c.recorded_at.label("released_at"),
        )
        .select_from(transaction)
        .join(batch, batch.c.batch_id == transaction.c.batch_id)
        .join(hold, hold.c.hold_id == transaction.c.hold_id)
        .join(_payee, _payee.c.wallet_id == hold.c.payee_wallet_id)
        # The moment is no condition of its own, but the index on it finds the batches' lines.
        .where(transaction.c.recorded_at >= since, batch.c.recorded_at >= since, batch.c.source == source)
    )
    found = lines.subquery()
    seconds = cast(func.extract("epoch", found.c.released_at - found.c.release_date), Double)
    median, maximum = connection.execute(
        select(func.percentile_cont(0.5).within_group(seconds), func.max(seconds)).select_from(found)
    ).one()
    return (
        Lateness(median_seconds=median, max_seconds=maximum),
        _rows(connection, lines.order_by(transaction.c.transaction_id.desc()).limit(20)),
    )


def currencies(connection: Connection) -> list[str]:
    """Return the currencies that an hour has been counted in, in order."""
    # Of the counts, since they are few: the wallets and transactions would all have to be read.
    column = hourly_release_count.c.currency
    return list(connection.scalars(select(column).distinct().order_by(column)))


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What the books have in all: transactions and their amounts, backjobs by state, freezes by kind.

    A row of `transactions` is a `type` in a `currency`, early releases apart (`early`), with `lines` and
    `amount_minor`.
    """

    transactions: Rows
    backjobs: dict[str, int]
    freezes: dict[str, int]


def totals(connection: Connection) -> Totals:
    """Count all that ever happened. Reads every transaction."""
    early = func.coalesce(batch.c.kind == "EARLY", literal(False)).label("early")
    keys = (transaction.c.type, early, transaction.c.currency)
    lines = (
        select(
            *keys,
            func.count().label("lines"),
            func.sum(transaction.c.amount_minor).label("amount_minor"),
        )
        .select_from(transaction)
        .outerjoin(batch, batch.c.batch_id == transaction.c.batch_id)
        .group_by(*keys)
        .order_by(*keys)
    )

    def counted(column: ColumnElement[Any]) -> dict[str, int]:
        query = select(column, func.count()).group_by(column).order_by(column)
        return {row[0]: row[1] for row in connection.execute(query)}

    return Totals(
        transactions=[{**row, "amount_minor": int(row["amount_minor"])} for row in _rows(connection, lines)],
        backjobs=counted(backjob.c.state),
        freezes=counted(hold_freeze.c.kind),
    )


def list_holds(
    connection: Connection,
    *,
    state: HoldState | None = None,
    payee: str | None = None,
    job: str | None = None,
    due_by: datetime | None = None,
    limit: int | None = None,
) -> Rows:
    """Return holds by release date; each filter that is given narrows them.

    `amount_minor` is what was held at first, of which `refunded_minor` went back to the payer and
    `left_minor` still waits in the buffer: nothing, once the hold is settled.
    """
    conditions: list[ColumnElement[bool]] = []
    if state is not None:
        conditions.append(hold_status.c.state == state)
    if payee is not None:
        conditions.append(_payee.c.owner == payee)
    if job is not None:
        conditions.append(hold_status.c.job == job)
    # Asked of the small table too, where it can answer: the view would look at all there ever was.
    if state in UNSETTLED:
        conditions.append(_waits(unsettled_hold.c.state == state))
    if due_by is not None:
        conditions.append(_waits(*_is_due(due_by)))
    return _rows(
        connection,
        _holds().where(*conditions).order_by(hold_status.c.release_date, hold_status.c.hold_id).limit(limit),
    )


def show_hold(
    connection: Connection, *, hold_id: int | None = None, reference: str | None = None
) -> dict[str, Any]:
    """Return one hold with its `freezes` and its `transactions`, the oldest first.

    A transaction has the owner that it went `to`, and, where it changed that one's balance,
    `balance_after_minor`. Who moved it and why is in `released_by` and `release_reason`, of a refund without
    a backjob in `refunded_by` and `refund_reason`.

    Raises:
        NotFound: no hold with this id or reference.
    """
    if hold_id is not None:
        require_id("hold", hold_id)
    condition = hold_status.c.reference == reference if hold_id is None else hold_status.c.hold_id == hold_id
    rows = _rows(connection, _holds().where(condition))
    if not rows:
        raise NotFound(
            f"hold {hold_id}: does not exist"
            if reference is None
            else f"reference {reference!r}: no hold has it",
            hold_id=hold_id,
            reference=reference,
        )
    found = rows[0]
    found["freezes"] = _rows(
        connection,
        select(
            hold_freeze.c.freeze_id,
            hold_freeze.c.kind,
            hold_freeze.c.backjob_id,
            hold_freeze.c.opened_by,
            hold_freeze.c.reason,
            hold_freeze.c.opened_at,
            hold_freeze.c.closed_by,
            hold_freeze.c.closing_reason,
            hold_freeze.c.closed_at,
        )
        .where(hold_freeze.c.hold_id == found["hold_id"])
        .order_by(hold_freeze.c.freeze_id),
    )
    is_refund = batch.c.kind == "REFUND"
    found["transactions"] = _rows(
        connection,
        select(
            transaction.c.transaction_id,
            transaction.c.type,
            transaction.c.amount_minor,
            transaction.c.currency,
            transaction.c.balance_after_minor,
            transaction.c.backjob_id,
            batch.c.batch_id,
            batch.c.kind.label("batch_kind"),
            case((is_refund, null()), else_=batch.c.source).label("released_by"),
            case((is_refund, null()), else_=batch.c.reason).label("release_reason"),
            case((is_refund, batch.c.source)).label("refunded_by"),
            case((is_refund, batch.c.reason)).label("refund_reason"),
            transaction.c.recorded_at,
        )
        .outerjoin(batch, batch.c.batch_id == transaction.c.batch_id)
        .where(
            transaction.c.hold_id == found["hold_id"],
            # Two indexes hold a hold's lines, each what the other does not.
            or_(transaction.c.type == "EARNING", transaction.c.type != "EARNING"),
        )
        .order_by(transaction.c.transaction_id),
    )
    for line in found["transactions"]:
        # Whose the balance is that the line has: a refund is the payer's, all else the payee's.
        line["to"] = found["payer" if line["type"] == "REFUND" else "payee"]
    return found


def list_backjobs(connection: Connection, *, state: str | None = None) -> Rows:
    """Return backjobs, the oldest first, each with the ids of its `holds`."""
    query = (
        select(
            backjob.c.backjob_id,
            backjob.c.job,
            backjob.c.state,
            backjob.c.requested_by,
            backjob.c.reason,
            backjob.c.requested_at,
            backjob.c.decided_by,
            backjob.c.decision_reason,
            backjob.c.decided_at,
            func.array_agg(hold_freeze.c.hold_id).label("holds"),
        )
        .join(hold_freeze, hold_freeze.c.backjob_id == backjob.c.backjob_id)
        .group_by(backjob.c.backjob_id)
        .order_by(backjob.c.backjob_id)
    )
    if state is not None:
        query = query.where(backjob.c.state == state)
    return _rows(connection, query)


def list_wallets(connection: Connection, *, owner: str) -> Rows:
    """Return an owner's wallets, one a currency.

    Raises:
        NotFound: the owner has none.
    """
    rows = _rows(
        connection,
        select(wallet.c.owner, wallet.c.currency, wallet.c.balance_minor, wallet.c.pending_earnings_minor)
        .where(wallet.c.owner == owner)
        .order_by(wallet.c.currency),
    )
    if not rows:
        raise NotFound(f"wallet of {owner!r}: does not exist", owner=owner)
    return rows


def wallet_statement(connection: Connection, *, owner: str, as_of: datetime | None = None) -> Rows:
    """Return the transactions of an owner's wallets up to and including `as_of`, the oldest first.

    `balance_after_minor` and `pending_earnings_after_minor` are the wallet's, derived from the
    transactions themselves; `change_minor` is what the line did to the balance, and
    `pending_change_minor` what it did to the pending earnings.

    Raises:
        NotFound: the owner has no wallet.
    """
    list_wallets(connection, owner=owner)
    rows = fetch(connection, "report/wallet_statement", owner=owner, as_of=as_of)
    sums = ("balance_after_minor", "pending_earnings_after_minor")
    # Sums of a bigint are numeric.
    return [{**row, **{name: int(row[name]) for name in sums}} for row in rows]


def holds_of_batch(connection: Connection, *, batch_id: int) -> Rows:
    """Return what one batch released, by hold, with the `amount_minor` that was credited."""
    return _rows(
        connection,
        select(
            hold.c.hold_id,
            hold.c.reference,
            hold.c.job,
            _payee.c.owner.label("payee"),
            transaction.c.amount_minor,
            transaction.c.currency,
            transaction.c.release_date,
        )
        .join(hold, hold.c.hold_id == transaction.c.hold_id)
        .join(_payee, _payee.c.wallet_id == hold.c.payee_wallet_id)
        .where(transaction.c.batch_id == batch_id)
        .order_by(transaction.c.transaction_id),
    )


@dataclass(frozen=True, kw_only=True)
class Stuck:
    """How many holds are stuck, and a number that changes when others are."""

    holds: int
    fingerprint: int


def count_stuck(connection: Connection, *, now: datetime, older_than: timedelta) -> Stuck:
    """Count the holds that have been frozen for longer than `older_than`, or that no freeze keeps frozen."""
    stuck = _stuck(now - older_than).subquery()
    row = connection.execute(
        select(
            func.count(),
            # Which of them they are, in no order: listing 100,000 ids takes as long as all the rest.
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
    """Return holds that have been frozen for longer than `older_than`, the longest first.

    Before them come holds that are FROZEN without an open freeze, however long: no verb leaves one behind,
    and none but `freeze_hold` and then `unfreeze_hold` lets it go. Their `kinds` are empty.

    `frozen_since` is when the oldest freeze that still stands was opened, or when the last one was closed
    or the hold began. `hold_ids` narrows them.
    """
    frozen = _stuck(now - older_than)
    if hold_ids is not None:
        frozen = frozen.having(frozen.selected_columns.hold_id.in_(hold_ids))
    # Cut off before all else: the rows that are shown are few, those that are stuck may be many.
    stuck = (
        frozen.order_by(frozen.selected_columns.frozen_since.nulls_first(), frozen.selected_columns.hold_id)
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
    return _rows(
        connection,
        _holds()
        .add_columns(
            func.coalesce(stuck.c.frozen_since, last_closed, hold_status.c.held_at).label("frozen_since"),
            kinds.label("kinds"),
        )
        .join(stuck, stuck.c.hold_id == hold_status.c.hold_id)
        .order_by(stuck.c.frozen_since.nulls_first(), hold_status.c.hold_id),
    )


def _stuck(before: datetime) -> Select[Any]:
    """Return the holds whose oldest open freeze is from before, and those FROZEN without one: NULL."""
    # Grouped rather than joined: linear, whatever the planner believes.
    opened = select(hold_freeze.c.hold_id, hold_freeze.c.opened_at).where(hold_freeze.c.closed_at.is_(None))
    frozen = select(unsettled_hold.c.hold_id, cast(null(), DateTime(timezone=True))).where(
        unsettled_hold.c.state == HoldState.FROZEN
    )
    either = union_all(opened, frozen).subquery()
    since = func.min(either.c.opened_at)
    return (
        select(either.c.hold_id, since.label("frozen_since"))
        .group_by(either.c.hold_id)
        .having(or_(since < before, since.is_(None)))
    )


def _holds() -> Select[Any]:
    """Ask for holds: `amount_minor` is what was held at first, `left_minor` what waits in the buffer."""
    waiting = hold_status.c.amount_minor - hold_status.c.refunded_minor
    left = case((hold_status.c.state.in_(UNSETTLED), waiting), else_=literal(0, BigInteger))
    return (
        select(
            hold_status.c.hold_id,
            hold_status.c.reference,
            hold_status.c.job,
            hold_status.c.title,
            _payee.c.owner.label("payee"),
            _payer.c.owner.label("payer"),
            hold_status.c.amount_minor,
            hold_status.c.refunded_minor,
            left.label("left_minor"),
            hold_status.c.currency,
            hold_status.c.state,
            hold_status.c.held_at,
            hold_status.c.release_date,
            hold_status.c.settled_at,
        )
        .select_from(hold_status)
        .join(_payee, _payee.c.wallet_id == hold_status.c.payee_wallet_id)
        .join(_payer, _payer.c.wallet_id == hold_status.c.payer_wallet_id)
    )


def _waits(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return hold_status.c.hold_id.in_(select(unsettled_hold.c.hold_id).where(*conditions))


def _is_due(due_by: datetime) -> list[ColumnElement[bool]]:
    # As the release itself asks, so that the index of what is due answers.
    return [
        unsettled_hold.c.state == HoldState.BUFFERED,
        unsettled_hold.c.release_hour <= due_by,
        unsettled_hold.c.release_date <= due_by,
    ]


def _rows(connection: Connection, query: Select[Any]) -> Rows:
    return [dict(row) for row in connection.execute(query).mappings()]
