"""Cancel a payout before it is sent: its money is back in the balance."""

from datetime import datetime

from buffer_pipeline.database import AnyConnection, fetch, wallet_capacity_or_refusal
from buffer_pipeline.errors import BooksOutOfBalance, NotFound, PayoutRefused
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import require_id, require_reason, require_text, require_time
from buffer_pipeline.locks import lock_wallets
from buffer_pipeline.payouts.request import Payout
from buffer_pipeline.payouts.state import PayoutState, PayoutVerb, payout_states_that_allow


def cancel_payout(
    connection: AnyConnection, *, payout_id: int, by: str, reason: str, now: datetime
) -> Payout:
    """Cancel a payout that is REQUESTED or BATCHED. Its amount is back in the balance.

    Its batch has one payout less and stays approved; a batch that loses its last payout is cancelled. Safe to
    run again: the same call on a payout that it has cancelled changes nothing.

    Raises:
        NotFound: no such payout.
        PayoutRefused: it is sent already, or somebody else has cancelled it.
        WalletFull: the wallet cannot hold the amount.
        BooksOutOfBalance: the payout was not cancelled as asked; roll back.
    """
    require_time("now", now)
    require_text("by", by)
    require_reason(reason)
    require_id("payout", payout_id)
    enter_hour(connection, now=now)
    rows = fetch(connection, "payouts/lock_payout", payout_id=payout_id)
    if not rows:
        raise NotFound(f"payout {payout_id}: does not exist", payout_id=payout_id)
    payout = rows[0]
    replayed = payout["state"] == PayoutState.CANCELLED and (by, reason) == (
        payout["cancelled_by"],
        payout["cancellation_reason"],
    )
    allowed = payout_states_that_allow(PayoutVerb.CANCEL)
    if not replayed and payout["state"] not in allowed:
        raise PayoutRefused(
            f"payout {payout_id}: cannot cancel from {payout['state']}; that needs {' or '.join(allowed)}",
            payout_id=payout_id,
            state=payout["state"],
            allowed=allowed,
        )
    if not replayed:
        if payout["payout_batch_id"] is not None:
            fetch(connection, "payouts/lock_batch", payout_batch_id=payout["payout_batch_id"])
        lock_wallets(connection, [payout["wallet_id"]])
        with wallet_capacity_or_refusal(connection, f"payout {payout_id}: its wallet"):
            done = fetch(
                connection,
                "payouts/cancel_payout",
                payout_id=payout_id,
                cancelled_by=by,
                reason=reason,
                now=now,
            )
        if not done:
            raise BooksOutOfBalance(f"payout {payout_id}: its cancellation failed; roll back")
    return Payout(
        payout_id=payout_id,
        owner=payout["owner"],
        currency=payout["currency"],
        amount_minor=payout["amount_minor"],
        state=PayoutState.CANCELLED,
        replayed=replayed,
    )
