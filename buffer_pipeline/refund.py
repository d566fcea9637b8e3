"""Refund a frozen hold, or a frozen earning, without a backjob, whole or in part, as an admin does."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import AnyConnection, Row, array_text, fetch, wallet_capacity_or_refusal
from buffer_pipeline.errors import (
    BackjobRefused,
    BooksOutOfBalance,
    FreezeRefused,
    NotFound,
    ReferenceConflict,
    StateRefused,
)
from buffer_pipeline.hold import UNSETTLED, BackjobState, FreezeKind, HoldState, Verb, states_that_allow
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import (
    require_id,
    require_not_before,
    require_reason,
    require_text,
    require_time,
)
from buffer_pipeline.locks import lock_holds, lock_reference, lock_wallets
from buffer_pipeline.money import format_amount, parse_amount
from buffer_pipeline.refund_split import kept_fees, split_refund


@dataclass(frozen=True, kw_only=True)
class Refund:
    """A refund to the payer. `state` is the hold's state now.

    `hold_ids` are the holds that it took from. `left_minor` is what the hold still holds, or all unsettled
    shares of an earning. `replayed` is True if an earlier call with the same reference did the work.
    """

    transaction_id: int
    hold_id: int
    amount_minor: int
    left_minor: int
    state: HoldState
    hold_ids: tuple[int, ...]
    replayed: bool = False


def refund_hold(
    connection: AnyConnection,
    *,
    hold_id: int,
    by: str,
    reason: str,
    reference: str,
    now: datetime,
    amount: Decimal | int | str | None = None,
) -> Refund:
    """Refund a frozen hold to its payer: all that it holds, or `amount` of it.

    By the id of an earning's own hold, all unsettled shares of the earning are refunded, a smaller amount in
    proportion (largest remainder), but a FEE share whose rule keeps the fee on a refund. All of them must be
    FROZEN, as they are after `freeze_hold` by the same id. Only an admin should do this; the platform checks
    who may. The release date does not matter. If a hold is refunded whole, its freezes are closed. What is
    not refunded stays FROZEN. The payer is notified once. `reference` is the idempotency key; wallet
    movements share its name space.

    Raises:
        NotFound: no such hold.
        StateRefused: it or another unsettled share of its earning is not frozen, or all of them are settled.
        BackjobRefused: a backjob freezes it, and has to be decided first.
        RuleRefused: it is a kept fee.
        FreezeRefused: it is FROZEN but has no open freeze, which is possible only in damaged books.
        InvalidInput: `now` is more than a minute before one of its freezes was opened.
        InsufficientFunds: `amount` is above what it holds, without a kept fee.
        WalletFull: the refund is more than the payer's wallet can hold.
        BooksOutOfBalance: the refund was not written as asked; roll back.
        ReferenceConflict: the reference was used for something else.
    """
    require_time("now", now)
    require_text("by", by)
    require_reason(reason)
    require_id("hold", hold_id)
    enter_hour(connection, now=now)
    lock_reference(connection, reference)
    holds = lock_holds(connection, hold_ids=[hold_id], with_shares=True)
    if not holds:
        raise NotFound(f"hold {hold_id}: does not exist", hold_id=hold_id)
    currency = holds[0]["currency"]
    amount_minor = None if amount is None else parse_amount(amount, currency, places_of(connection)[currency])
    replay = partial(_replay, connection, holds=holds, by=by, reason=reason, amount_minor=amount_minor)
    found = fetch(connection, "refund/find_refund", reference=reference)
    if found:
        return replay(found[0])
    frozen = _require_frozen(holds)
    now = _require_refundable(connection, frozen, now=now)
    kept = kept_fees(connection, frozen)
    refunds = split_refund(
        connection,
        frozen,
        chosen={hold["hold_id"] for hold in frozen},
        kept=kept,
        amount_minor=amount_minor,
        what=f"hold {hold_id}",
        whose="it holds" if len(holds) == 1 else "its frozen shares hold",
        hold_id=hold_id,
    )
    taken = {hold["hold_id"]: refund for hold, refund in zip(frozen, refunds, strict=True) if refund}
    refundable = sum(hold["amount_minor"] for hold in frozen if hold["hold_id"] not in kept)
    lock_wallets(
        connection, (hold[side] for hold in frozen for side in ("payee_wallet_id", "payer_wallet_id"))
    )
    with wallet_capacity_or_refusal(connection, f"hold {hold_id}: its payer's wallet", hold_id=hold_id):
        rows = fetch(
            connection,
            "refund/refund_hold",
            named_id=hold_id,
            hold_ids=array_text(list(taken)),
            refunds_minor=array_text(list(taken.values())),
            earning_id=None if len(holds) == 1 else hold_id,
            left_minor=None if len(holds) == 1 else refundable - sum(refunds),
            refunded_by=by,
            reason=reason,
            reference=reference,
            now=now,
        )
        if not rows and (found := fetch(connection, "refund/find_refund", reference=reference)):
            # Wallet movements do not lock their reference, so one of them may have committed it by now.
            return replay(found[0])
    if not rows or rows[0]["refunded_minor"] != sum(refunds):
        raise BooksOutOfBalance(f"hold {hold_id}: the refund of {sum(refunds)} minor units failed; roll back")
    state = HoldState(holds[0]["state"])
    if taken.get(hold_id) == holds[0]["amount_minor"]:
        state = HoldState.REFUNDED
    return Refund(
        transaction_id=rows[0]["transaction_id"],
        hold_id=hold_id,
        amount_minor=sum(refunds),
        left_minor=_left(holds) - sum(refunds),
        state=state,
        hold_ids=tuple(taken),
    )


def _require_frozen(holds: Sequence[Row]) -> list[Row]:
    """Return the unsettled ones of an earning's holds. All of them must be frozen.

    The first of the holds is the one that the caller named.
    """
    unsettled = [hold for hold in holds if hold["state"] in UNSETTLED]
    # Without this, a share that is not frozen would be left out of the refund, and be paid out later.
    refused = [hold for hold in unsettled if hold["state"] != HoldState.FROZEN] or holds[: not unsettled]
    if refused:
        raise StateRefused(
            hold_id=refused[0]["hold_id"],
            state=refused[0]["state"],
            verb=Verb.REFUND_ALONE,
            allowed=states_that_allow(Verb.REFUND_ALONE),
        )
    return unsettled


def _require_refundable(connection: AnyConnection, frozen: Sequence[Row], *, now: datetime) -> datetime:
    """Return the time of the refund: `now`, or that of the newest freeze if `now` is slightly before it."""
    hold_ids = [hold["hold_id"] for hold in frozen]
    freezes = fetch(connection, "refund/open_freezes", hold_ids=array_text(hold_ids))
    covered = {freeze["hold_id"] for freeze in freezes}
    for hold_id in hold_ids:
        if hold_id not in covered:
            raise FreezeRefused(
                f"hold {hold_id}: FROZEN without an open freeze; freeze it first, then refund it",
                hold_id=hold_id,
            )
    for freeze in freezes:
        if freeze["kind"] == FreezeKind.BACKJOB:
            raise BackjobRefused(
                f"hold {freeze['hold_id']}: backjob {freeze['backjob_id']} covers it;"
                " approve, reject or withdraw that",
                hold_id=freeze["hold_id"],
                backjob_id=freeze["backjob_id"],
                state=BackjobState.OPEN,
                allowed=("approve", "reject", "withdraw"),
            )
        what = f"freeze {freeze['freeze_id']} was opened"
        now = require_not_before(now, freeze["opened_at"], what=what, freeze_ids=[freeze["freeze_id"]])
    return now


def _left(holds: Sequence[Row]) -> int:
    return sum(hold["amount_minor"] for hold in holds if hold["state"] in UNSETTLED)


def _replay(
    connection: AnyConnection,
    found: Row,
    *,
    holds: Sequence[Row],
    by: str,
    reason: str,
    amount_minor: int | None,
) -> Refund:
    # Without an amount, the caller meant all that could be refunded.
    same_amount = found["left_nothing"] if amount_minor is None else amount_minor == found["amount_minor"]
    named = holds[0]
    if (found["hold_id"], found["source"], found["reason"]) != (
        named["hold_id"],
        by,
        reason,
    ) or not same_amount:
        places = places_of(connection)[found["currency"]]
        raise ReferenceConflict(
            f"reference {found['reference']!r}: already used for transaction {found['transaction_id']},"
            f" a {found['type']} of {format_amount(found['amount_minor'], places)}"
            f" {found['currency']}" + (f" of hold {found['hold_id']}" if found["hold_id"] else ""),
            reference=found["reference"],
            transaction_id=found["transaction_id"],
            hold_id=found["hold_id"],
        )
    return Refund(
        transaction_id=found["transaction_id"],
        hold_id=named["hold_id"],
        amount_minor=found["amount_minor"],
        left_minor=_left(holds),
        state=HoldState(named["state"]),
        hold_ids=tuple(found["hold_ids"]),
        replayed=True,
    )
