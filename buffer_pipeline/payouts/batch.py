"""Batches of payouts: made by one, approved by somebody else, sent, or cancelled."""

from dataclasses import dataclass
from datetime import datetime

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import AnyConnection, Row, array_text, fetch
from buffer_pipeline.errors import BooksOutOfBalance, InvalidInput, NotAllowed, NotFound, PayoutRefused
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import require_id, require_reason, require_text, require_time
from buffer_pipeline.payouts.destination import PayoutMethod
from buffer_pipeline.payouts.state import (
    OPEN_BATCH,
    PayoutBatchState,
    PayoutBatchVerb,
    batch_states_that_allow,
)
from buffer_pipeline.policy import PayoutPolicy


@dataclass(frozen=True, kw_only=True)
class PayoutBatch:
    """A batch after a verb. `payouts` and `amount_minor` are what is in it; cancelled, what was in it.

    `replayed` is True if the same person did the same before.
    """

    payout_batch_id: int
    currency: str
    method: PayoutMethod
    state: PayoutBatchState
    payouts: int
    amount_minor: int
    four_eyes: bool
    replayed: bool = False


def make_payout_batch(
    connection: AnyConnection,
    *,
    currency: str,
    by: str,
    now: datetime,
    method: PayoutMethod | str | None = None,
    policy: PayoutPolicy | None = None,
) -> PayoutBatch:
    """Put the REQUESTED payouts of a currency and a method into a batch, each to its owner's destination.

    A payout waits for another batch while its owner is frozen or owes a debt, or their destination is newer
    than the policy says; an admin's override passes all of these. `method` is needed only if there are
    payouts by both. To run it again makes a batch of what was requested since.

    Raises:
        InvalidInput: an unknown method, or none although there are payouts by both.
        PayoutRefused: there is nothing to pay.
        BooksOutOfBalance: the batch is not what was locked for it; roll back.
    """
    require_time("now", now)
    require_text("currency", currency)
    require_text("by", by)
    try:
        named = None if method is None else PayoutMethod(method).value
    except ValueError:
        raise InvalidInput(f"payout batch: method {method!r} is not IBAN or TOKEN") from None
    policy = policy or PayoutPolicy()
    enter_hour(connection, now=now)
    found = fetch(
        connection,
        "payouts/lock_requested",
        currency=currency,
        method=named,
        set_by_now=now - policy.destination_wait,
    )
    if not found:
        raise _nothing_to_pay(connection, currency, policy)
    if len(found) > 1:
        raise InvalidInput(
            f"payout batch in {currency}: payouts by {' and '.join(row['method'] for row in found)}"
            " are requested; name the method"
        )
    return put_in_batch(connection, found[0], currency=currency, by=by, now=now, policy=policy)


def put_in_batch(
    connection: AnyConnection, taken: Row, *, currency: str, by: str, now: datetime, policy: PayoutPolicy
) -> PayoutBatch:
    """Make a batch of the payouts of one method that `lock_requested.sql` has locked.

    Raises:
        BooksOutOfBalance: the batch is not what was locked for it; roll back.
    """
    four_eyes = policy.needs_four_eyes(taken["amount_minor"], currency, places_of(connection)[currency])
    made = fetch(
        connection,
        "payouts/make_batch",
        currency=currency,
        method=taken["method"],
        payouts=taken["payouts"],
        amount_minor=taken["amount_minor"],
        four_eyes=four_eyes,
        made_by=by,
        now=now,
        payout_ids=array_text(taken["payout_ids"]),
        destination_ids=array_text(taken["destination_ids"]),
    )[0]
    _require_all(made, taken)
    return PayoutBatch(
        payout_batch_id=made["payout_batch_id"],
        currency=currency,
        method=PayoutMethod(taken["method"]),
        state=PayoutBatchState.MADE,
        payouts=taken["payouts"],
        amount_minor=taken["amount_minor"],
        four_eyes=four_eyes,
    )


def approve_payout_batch(
    connection: AnyConnection, *, payout_batch_id: int, by: str, now: datetime
) -> PayoutBatch:
    """Approve a batch, as somebody else than who made it, unless its amount needs no four eyes.

    Raises:
        NotFound: no such batch.
        NotAllowed: its maker may not approve it.
        PayoutRefused: it is not MADE, or somebody else has approved it.
    """
    batch, replayed = _lock(connection, payout_batch_id, PayoutBatchVerb.APPROVE, by=by, now=now)
    if not replayed:
        if batch["four_eyes"] and by == batch["made_by"]:
            raise NotAllowed(
                f"payout batch {payout_batch_id}: made by {by!r}, so somebody else has to approve it",
                payout_batch_id=payout_batch_id,
            )
        done = fetch(
            connection, "payouts/approve_batch", payout_batch_id=payout_batch_id, approved_by=by, now=now
        )
        if not done:
            raise BooksOutOfBalance(f"payout batch {payout_batch_id}: its approval failed; roll back")
    return _answer(batch, PayoutBatchState.APPROVED, replayed=replayed)


def send_payout_batch(
    connection: AnyConnection, *, payout_batch_id: int, by: str, now: datetime
) -> PayoutBatch:
    """Mark an approved batch and its payouts as SENT, before its file goes to the bank. Owners are notified.

    After this none of its payouts can be cancelled, so a file that is written now stays right.

    Raises:
        NotFound: no such batch.
        PayoutRefused: it is not APPROVED, somebody else has sent it, or an owner in it is frozen, owes a debt
            or has another destination by now; cancel that payout first.
        BooksOutOfBalance: what was sent is not what is in the batch; roll back.
    """
    batch, replayed = _lock(connection, payout_batch_id, PayoutBatchVerb.SEND, by=by, now=now)
    if not replayed:
        unpayable = fetch(connection, "payouts/unpayable_in_batch", payout_batch_id=payout_batch_id)
        if unpayable:
            first = unpayable[0]
            named = ", ".join(
                f"payout {row['payout_id']} of {row['owner']!r}, who {_UNPAYABLE[row['why']][0]}"
                for row in unpayable
            )
            raise PayoutRefused(
                f"payout batch {payout_batch_id}: cannot be sent with {named}; cancel such a payout first",
                payout_batch_id=payout_batch_id,
                payout_id=first["payout_id"],
                owner=first["owner"],
                state=first["why"],
                allowed=("cancel_payout", *_UNPAYABLE[first["why"]][1]),
            )
        sent = fetch(connection, "payouts/send_batch", payout_batch_id=payout_batch_id, sent_by=by, now=now)[
            0
        ]
        _require_all(sent, batch)
    return _answer(batch, PayoutBatchState.SENT, replayed=replayed)


_UNPAYABLE = {
    "FROZEN": ("is frozen", ("unfreeze_owner",)),
    "INDEBTED": ("owes a debt", ("recover_debts",)),
    "DESTINATION_CHANGED": ("has changed where payouts go", ()),
}
"""Why a payout of a batch cannot be sent: the words, and what else than cancelling it helps."""


def cancel_payout_batch(
    connection: AnyConnection, *, payout_batch_id: int, by: str, reason: str, now: datetime
) -> PayoutBatch:
    """Cancel a batch before it is sent. Its payouts are REQUESTED again, and the next batch takes them.

    Raises:
        NotFound: no such batch.
        PayoutRefused: it is sent, or somebody else has cancelled it.
        BooksOutOfBalance: not all of its payouts went back; roll back.
    """
    require_reason(reason)
    batch, replayed = _lock(
        connection, payout_batch_id, PayoutBatchVerb.CANCEL, by=by, now=now, reason=reason
    )
    if not replayed:
        back = fetch(
            connection,
            "payouts/cancel_batch",
            payout_batch_id=payout_batch_id,
            cancelled_by=by,
            reason=reason,
            now=now,
        )[0]
        if back["payouts"] != batch["payouts"]:
            raise BooksOutOfBalance(f"payout batch {payout_batch_id}: its cancellation failed; roll back")
    return _answer(batch, PayoutBatchState.CANCELLED, replayed=replayed)


_DONE = {
    PayoutBatchVerb.APPROVE: (PayoutBatchState.APPROVED, "approved_by"),
    PayoutBatchVerb.SEND: (PayoutBatchState.SENT, "sent_by"),
    PayoutBatchVerb.CANCEL: (PayoutBatchState.CANCELLED, "cancelled_by"),
}


def _lock(
    connection: AnyConnection,
    payout_batch_id: int,
    verb: PayoutBatchVerb,
    *,
    by: str,
    now: datetime,
    reason: str | None = None,
) -> tuple[Row, bool]:
    """Lock a batch, and before it its payouts if the verb changes them. Return it, and whether this was done
    before.

    The payouts are locked although the batch is not approved yet: it can be while this waits. A batch that is
    sent or cancelled is not locked, because it never changes, and who marks its payouts locks it before them.
    """
    require_time("now", now)
    require_text("by", by)
    require_id("payout batch", payout_batch_id)
    enter_hour(connection, now=now)
    found = fetch(connection, "payouts/find_batch", payout_batch_id=payout_batch_id)
    if not found:
        raise NotFound(f"payout batch {payout_batch_id}: does not exist", payout_batch_id=payout_batch_id)
    if found[0]["state"] in OPEN_BATCH and verb is not PayoutBatchVerb.APPROVE:
        # Payouts first, then their batch, as when one of them is cancelled. While they are locked, nobody
        # sends the batch.
        fetch(connection, "payouts/lock_payouts_of_batch", payout_batch_id=payout_batch_id)
        found = fetch(connection, "payouts/find_batch", payout_batch_id=payout_batch_id)
    if found[0]["state"] in OPEN_BATCH:
        found = fetch(connection, "payouts/lock_batch", payout_batch_id=payout_batch_id)
    batch = found[0]
    state, who = _DONE[verb]
    if (batch["state"], batch[who]) == (state, by) and (
        reason is None or batch["cancellation_reason"] == reason
    ):
        return batch, True
    allowed = batch_states_that_allow(verb)
    if batch["state"] not in allowed:
        done_by = next(
            (f" by {batch[who]!r}" for state, who in _DONE.values() if batch["state"] == state), ""
        )
        raise PayoutRefused(
            f"payout batch {payout_batch_id}: cannot {verb}, as it is {batch['state']}{done_by}; that needs"
            f" {' or '.join(allowed)}",
            payout_batch_id=payout_batch_id,
            state=batch["state"],
            allowed=allowed,
        )
    return batch, False


def _require_all(done: Row, expected: Row) -> None:
    if any(done[name] != expected[name] for name in ("payouts", "amount_minor")):
        raise BooksOutOfBalance(
            f"payout batch: {done['payouts']} payouts of {done['amount_minor']} minor units instead of"
            f" {expected['payouts']} of {expected['amount_minor']}; roll back"
        )


def _nothing_to_pay(connection: AnyConnection, currency: str, policy: PayoutPolicy) -> PayoutRefused:
    waiting = fetch(connection, "payouts/waiting_requests", currency=currency)[0]
    why = [
        f"{waiting[what]} {text}"
        for what, text in (
            ("frozen", "of frozen owners"),
            ("indebted", "of owners who owe a debt"),
            (
                "waiting",
                f"by another method, to a destination of less than {policy.destination_wait_hours} hours,"
                " or taken by somebody else",
            ),
        )
        if waiting[what]
    ]
    return PayoutRefused(
        f"payout batch in {currency}: nothing to pay"
        + (f"; requested are {' and '.join(why)}" if why else "")
    )


def _answer(batch: Row, state: PayoutBatchState, *, replayed: bool) -> PayoutBatch:
    return PayoutBatch(
        payout_batch_id=batch["payout_batch_id"],
        currency=batch["currency"],
        method=PayoutMethod(batch["method"]),
        state=state,
        payouts=batch["payouts"],
        amount_minor=batch["amount_minor"],
        four_eyes=batch["four_eyes"],
        replayed=replayed,
    )
