"""An admin refunds one frozen hold, whole or in part, without a backjob."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import AnyConnection, Row, fetch, room_or_refusal
from buffer_pipeline.errors import (
    BackjobRefused,
    BooksOutOfBalance,
    FreezeRefused,
    InsufficientFunds,
    NotFound,
    ReferenceConflict,
    StateRefused,
)
from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState, Verb, states_that_allow
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


@dataclass(frozen=True, kw_only=True)
class Refund:
    """A refund to the payer; `state` is the hold's now, and `left_minor` what it still holds.

    `replayed` when a call with this reference had done it before.
    """

    transaction_id: int
    hold_id: int
    amount_minor: int
    left_minor: int
    state: HoldState
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
    """Refund all that a frozen hold holds to its payer, or `amount` of it.

    For an admin: who may ask is the platform's to check. It does not depend on the release date. With
    the whole amount the hold's freezes are closed; a rest stays FROZEN under them. `reference` is the
    idempotency key, among those of all wallet movements.

    Raises:
        NotFound: no such hold.
        StateRefused: it is not frozen.
        BackjobRefused: a backjob covers it, which has to be decided.
        FreezeRefused: nobody has frozen it, which only damaged books can say.
        InvalidInput: `now` is more than a minute before the opening of one of its freezes.
        InsufficientFunds: `amount` is above what it holds.
        WalletFull: more than the payer's wallet can hold.
        ReferenceConflict: the reference belongs to something else.
    """
    require_time("now", now)
    require_text("by", by)
    require_reason(reason)
    require_id("hold", hold_id)
    enter_hour(connection, now=now)
    lock_reference(connection, reference)
    holds = lock_holds(connection, hold_ids=[hold_id])
    if not holds:
        raise NotFound(f"hold {hold_id}: does not exist", hold_id=hold_id)
    (hold,) = holds
    currency = hold["currency"]
    places = places_of(connection)[currency]
    amount_minor = None if amount is None else parse_amount(amount, currency, places)
    replay = partial(_replay, connection, hold=hold, by=by, reason=reason, amount_minor=amount_minor)
    found = fetch(connection, "find_refund", reference=reference)
    if found:
        return replay(found[0])
    if hold["state"] != HoldState.FROZEN:
        raise StateRefused(
            hold_id=hold_id,
            state=hold["state"],
            verb=Verb.REFUND_ALONE,
            allowed=states_that_allow(Verb.REFUND_ALONE),
        )
    freezes = fetch(connection, "open_freezes", hold_id=hold_id)
    if not freezes:
        raise FreezeRefused(
            f"hold {hold_id}: FROZEN without an open freeze; freeze it first, then refund it", hold_id=hold_id
        )
    for freeze in freezes:
        if freeze["kind"] == FreezeKind.BACKJOB:
            raise BackjobRefused(
                f"hold {hold_id}: backjob {freeze['backjob_id']} covers it; approve, reject or withdraw that",
                hold_id=hold_id,
                backjob_id=freeze["backjob_id"],
                state=BackjobState.OPEN,
                allowed=("approve", "reject", "withdraw"),
            )
        what = f"freeze {freeze['freeze_id']} was opened"
        now = require_not_before(now, freeze["opened_at"], what=what, freeze_ids=[freeze["freeze_id"]])
    held_minor = hold["amount_minor"]
    if amount_minor is None:
        amount_minor = held_minor
    if amount_minor > held_minor:
        raise InsufficientFunds(
            f"hold {hold_id}: {format_amount(amount_minor, places)} {currency} is above"
            f" the {format_amount(held_minor, places)} that it holds",
            hold_id=hold_id,
        )
    lock_wallets(connection, (hold["payee_wallet_id"], hold["payer_wallet_id"]))
    with room_or_refusal(connection, f"hold {hold_id}: its payer's wallet", hold_id=hold_id):
        rows = fetch(
            connection,
            "refund_hold",
            hold_id=hold_id,
            amount_minor=amount_minor,
            refunded_by=by,
            reason=reason,
            reference=reference,
            now=now,
        )
        if not rows and (found := fetch(connection, "find_refund", reference=reference)):
            # Wallet movements don't lock their reference: one of them has committed it meanwhile.
            return replay(found[0])
    if not rows or rows[0]["left_minor"] != held_minor - amount_minor:
        raise BooksOutOfBalance(f"hold {hold_id}: the refund of {amount_minor} minor units failed; roll back")
    return Refund(
        transaction_id=rows[0]["transaction_id"],
        hold_id=hold_id,
        amount_minor=amount_minor,
        left_minor=rows[0]["left_minor"],
        state=HoldState.FROZEN if rows[0]["left_minor"] else HoldState.REFUNDED,
    )


def _replay(
    connection: AnyConnection, found: Row, *, hold: Row, by: str, reason: str, amount_minor: int | None
) -> Refund:
    if amount_minor is None:
        # All that was left was meant.
        same_amount = hold["state"] == HoldState.REFUNDED and not found["more_was_refunded"]
    else:
        same_amount = amount_minor == found["amount_minor"]
    if (found["hold_id"], found["source"], found["reason"]) != (
        hold["hold_id"],
        by,
        reason,
    ) or not same_amount:
        places = places_of(connection)[found["currency"]]
        raise ReferenceConflict(
            f"reference {found['reference']!r}: stands for transaction {found['transaction_id']},"
            f" a {found['type']} of {format_amount(found['amount_minor'], places)}"
            f" {found['currency']}" + (f" of hold {found['hold_id']}" if found["hold_id"] else ""),
            reference=found["reference"],
            transaction_id=found["transaction_id"],
            hold_id=found["hold_id"],
        )
    return Refund(
        transaction_id=found["transaction_id"],
        hold_id=found["hold_id"],
        amount_minor=found["amount_minor"],
        left_minor=hold["amount_minor"] if hold["state"] in (HoldState.FROZEN, HoldState.BUFFERED) else 0,
        state=HoldState(hold["state"]),
        replayed=True,
    )
