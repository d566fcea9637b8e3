"""A backjob is approved: the held money is refunded to the payer, whole or in part."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from buffer_pipeline.backjob.decide import lock_open_backjob
from buffer_pipeline.backjob.lookup import Backjob
from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import AnyConnection, Row, fetch, wallet_capacity_or_refusal
from buffer_pipeline.errors import (
    BooksOutOfBalance,
    FreezeRefused,
    InvalidInput,
    NotFound,
    ReferenceConflict,
)
from buffer_pipeline.hold import BackjobState
from buffer_pipeline.inputs import require_id
from buffer_pipeline.locks import lock_wallets
from buffer_pipeline.money import parse_amount
from buffer_pipeline.refund_split import kept_fees, split_refund


def approve_backjob(
    connection: AnyConnection,
    *,
    backjob_id: int,
    by: str,
    reason: str,
    now: datetime,
    amount: Decimal | int | str | None = None,
    hold_ids: Sequence[int] | None = None,
    reference: str | None = None,
) -> Backjob:
    """Approve a backjob: refund its holds to the payer.

    With `hold_ids` only these holds are refunded; with `amount` only that amount. A smaller amount is
    split over the holds in proportion to what each holds (largest remainder). Nothing is taken from a FEE
    share whose rule keeps the fee on a refund. What is not refunded returns to the buffer with its release
    date unchanged.

    Raises:
        InvalidInput: `now` is more than a minute before the latest freeze of the backjob, or the
            amount or the ids cannot be accepted.
        NotFound: no such backjob, or it does not freeze one of `hold_ids`.
        BackjobRefused: it is decided already.
        FreezeRefused: one of the holds has another open freeze.
        InsufficientFunds: `amount` is above what is held, without the kept fees.
        RuleRefused: `hold_ids` names only kept fees.
        WalletFull: the refund is more than the payer's wallet can hold.
        BooksOutOfBalance: the refunds differ from what was asked; roll back.
        ReferenceConflict: the reference was used for another decision.
    """
    named = None if hold_ids is None else {require_id("hold", hold_id) for hold_id in hold_ids}
    if named is not None and not named:
        raise InvalidInput(f"backjob {backjob_id}: hold_ids names no hold", backjob_id=backjob_id)
    found = lock_open_backjob(
        connection,
        backjob_id=backjob_id,
        state=BackjobState.APPROVED,
        by=by,
        reason=reason,
        now=now,
        reference=reference,
    )
    if isinstance(found, Backjob):
        _require_same_refunds(connection, found, named, amount=amount, reference=reference)
        return found
    job, now = found
    holds = fetch(connection, "backjob/lock_frozen_holds", backjob_id=backjob_id)
    others = fetch(connection, "backjob/other_freezes", backjob_id=backjob_id)
    if others:
        open_freezes = ", ".join(
            f"{row['kind']} freeze {row['freeze_id']} on hold {row['hold_id']}" for row in others
        )
        raise FreezeRefused(
            f"backjob {backjob_id}: cannot be approved while {open_freezes}"
            f" {'is' if len(others) == 1 else 'are'} open",
            backjob_id=backjob_id,
            hold_id=others[0]["hold_id"],
            freeze_ids=dict.fromkeys(row["freeze_id"] for row in others),
        )
    refunds = _split(connection, holds, named, backjob_id=backjob_id, amount=amount)
    lock_wallets(
        connection, (hold[side] for hold in holds for side in ("payee_wallet_id", "payer_wallet_id"))
    )
    with wallet_capacity_or_refusal(
        connection, f"backjob {backjob_id}: its payer's wallet", backjob_id=backjob_id
    ):
        rows = fetch(
            connection,
            "backjob/refund_backjob",
            backjob_id=backjob_id,
            hold_ids=[hold["hold_id"] for hold in holds],
            refunds_minor=refunds,
            decision_reference=reference,
            decided_by=by,
            reason=reason,
            now=now,
        )
    refunded_minor = sum(row["refunded_minor"] for row in rows)
    if refunded_minor != sum(refunds):
        raise BooksOutOfBalance(
            f"backjob {backjob_id}: {sum(refunds)} minor units were to be refunded,"
            f" {refunded_minor} were; roll back"
        )
    return Backjob(
        backjob_id=backjob_id,
        job=job,
        state=BackjobState.APPROVED,
        hold_ids=tuple(hold["hold_id"] for hold in holds),
    )


def _split(
    connection: AnyConnection,
    holds: Sequence[Row],
    named: set[int] | None,
    *,
    backjob_id: int,
    amount: Decimal | int | str | None,
) -> list[int]:
    """Return the refund of each hold in minor units, 0 for a hold that is not in `named` or is a kept fee."""
    strangers = sorted((named or set()) - {hold["hold_id"] for hold in holds})
    if strangers:
        raise NotFound(
            f"backjob {backjob_id}: does not freeze hold {strangers[0]}",
            backjob_id=backjob_id,
            hold_id=strangers[0],
        )
    chosen = [hold for hold in holds if named is None or hold["hold_id"] in named]
    amount_minor = None
    if amount is not None:
        currencies = sorted({hold["currency"] for hold in chosen})
        if len(currencies) > 1:
            raise InvalidInput(
                f"backjob {backjob_id}: its holds are in {' and '.join(currencies)};"
                " approve it whole, name holds of one currency, or reject it",
                backjob_id=backjob_id,
            )
        amount_minor = parse_amount(amount, currencies[0], places_of(connection)[currencies[0]])
    return split_refund(
        connection,
        holds,
        chosen={hold["hold_id"] for hold in chosen},
        kept=kept_fees(connection, chosen),
        amount_minor=amount_minor,
        what=f"backjob {backjob_id}",
        whose="its holds hold",
        backjob_id=backjob_id,
    )


def _require_same_refunds(
    connection: AnyConnection,
    done: Backjob,
    named: set[int] | None,
    *,
    amount: Decimal | int | str | None,
    reference: str | None,
) -> None:
    """Refuse a repeated approval with another amount, or one that does not name a refunded hold.

    Without an amount, the caller meant all that these holds held, but the kept fees.
    """
    holds = fetch(connection, "backjob/holds_of_backjob", backjob_id=done.backjob_id)
    kept = kept_fees(connection, holds)
    refunded = {hold["hold_id"]: hold for hold in holds if hold["refunded_minor"]}
    same = named is None or refunded.keys() <= named
    if amount is None:
        meant = [hold for hold in holds if named is None or hold["hold_id"] in named]
        same = same and all(hold["refunded_whole"] for hold in meant if hold["hold_id"] not in kept)
    else:
        # An approval with an amount is in one currency.
        currency = next(iter(refunded.values()))["currency"]
        amount_minor = parse_amount(amount, currency, places_of(connection)[currency])
        same = same and amount_minor == sum(hold["refunded_minor"] for hold in refunded.values())
    if not same:
        raise ReferenceConflict(
            f"reference {reference!r}: already used for backjob {done.backjob_id},"
            " APPROVED with another amount or other holds",
            reference=reference,
            backjob_id=done.backjob_id,
            state=done.state,
        )
