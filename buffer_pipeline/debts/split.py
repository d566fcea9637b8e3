"""What a claw-back takes from each share of an earning."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import AnyConnection, Row
from buffer_pipeline.errors import InsufficientFunds
from buffer_pipeline.hold import HoldState
from buffer_pipeline.money import format_amount, split_in_proportion
from buffer_pipeline.refund_split import kept_fees, split_refund

_HELD_NAMED_MAX: Final = 3


class ClawbackTo(StrEnum):
    """Who gets what is taken back: the payer, or a bank that has taken the payment back (chargeback)."""

    PAYER = "PAYER"
    BANK = "BANK"


def split_claw_back(
    connection: AnyConnection,
    holds: Sequence[Row],
    left_minor: Mapping[int, int],
    *,
    amount_minor: int,
    to: ClawbackTo,
) -> dict[int, int]:
    """Return what is taken of each hold, in minor units, by hold: only what is above 0.

    `left_minor` is what each hold has released and not given back before. The first hold is the named one.
    They give in proportion to it (largest remainder), but a fee that its rule keeps on a refund: nothing for
    the payer, and for a bank only what the others do not cover. The bank has taken the whole payment, so
    nothing is kept of it.

    Raises:
        RuleRefused: for the payer, and all that is left are kept fees.
        InsufficientFunds: the amount is above what is left. The message says what else of the earning there
            is: fees that are kept, and shares that are still held.
    """
    named, ids = holds[0], [hold["hold_id"] for hold in holds]
    kept = kept_fees(connection, holds)
    left = [left_minor[id_] for id_ in ids]
    given_first = [0 if id_ in kept else minor for id_, minor in zip(ids, left, strict=True)]
    given_last = [minor - first for minor, first in zip(left, given_first, strict=True)]
    takeable = sum(left) if to is ClawbackTo.BANK else sum(given_first)
    if takeable and amount_minor > takeable:
        raise _too_much(
            connection, holds, takeable, amount_minor=amount_minor, to=to, kept=kept, left=left_minor
        )
    if to is ClawbackTo.BANK:
        first_minor = min(amount_minor, sum(given_first))
        parts = [
            first + last
            for first, last in zip(
                split_in_proportion(first_minor, given_first) if first_minor else [0] * len(ids),
                split_in_proportion(amount_minor - first_minor, given_last)
                if amount_minor > first_minor
                else [0] * len(ids),
                strict=True,
            )
        ]
    else:
        parts = split_refund(
            connection,
            [{**hold, "amount_minor": left_minor[hold["hold_id"]]} for hold in holds],
            chosen=set(ids),
            kept=kept,
            amount_minor=amount_minor,
            what=f"hold {named['hold_id']}",
            whose="is left to take back",
            hold_id=named["hold_id"],
        )
    return {id_: part for id_, part in zip(ids, parts, strict=True) if part}


def held_texts(connection: AnyConnection, holds: Sequence[Row], *, to: ClawbackTo) -> str:
    """Return what is still held of the holds, and how it can be taken; empty if nothing is.

    It begins with a semicolon, to follow a refusal.
    """
    places = places_of(connection)
    held = [hold for hold in holds if hold["held_minor"]]
    texts = [
        f"; {format_amount(hold['held_minor'], places[hold['currency']])} {hold['currency']} is still held in"
        f" hold {hold['hold_id']}, {hold['state']}"
        for hold in held[:_HELD_NAMED_MAX]
    ]
    if not held:
        return ""
    if len(held) > _HELD_NAMED_MAX:
        texts.append(f"; and {len(held) - _HELD_NAMED_MAX} more are held")
    if to is ClawbackTo.PAYER:
        help_ = "freeze and refund what is held"
    else:
        frozen = any(hold["state"] == HoldState.FROZEN for hold in held)
        help_ = (
            f"{'unfreeze it, ' if frozen else ''}release it early as an admin, and then take back all of it"
        )
    return "".join(texts) + f": {help_}"


def _too_much(
    connection: AnyConnection,
    holds: Sequence[Row],
    takeable: int,
    *,
    amount_minor: int,
    to: ClawbackTo,
    kept: Mapping[int, object],
    left: Mapping[int, int],
) -> InsufficientFunds:
    named, currency = holds[0], holds[0]["currency"]
    places = places_of(connection)[currency]
    of_shares = "" if len(holds) == 1 else " of its shares"
    fees = ""
    if to is ClawbackTo.PAYER:
        fees = "".join(
            f"; the fee of {format_amount(left[id_], places)} {currency}, hold {id_}, is kept by {rule}"
            for id_, rule in kept.items()
            if left[id_]
        )
    return InsufficientFunds(
        f"hold {named['hold_id']}: {format_amount(amount_minor, places)} {currency} is above"
        f" the {format_amount(takeable, places)} that is left to take back{of_shares}{fees}"
        + held_texts(connection, holds, to=to),
        hold_id=named["hold_id"],
        allowed=_help(holds, to),
    )


def _help(holds: Sequence[Row], to: ClawbackTo) -> tuple[str, ...]:
    if not any(hold["held_minor"] for hold in holds):
        return ()
    return ("refund_hold",) if to is ClawbackTo.PAYER else ("release_early",)
