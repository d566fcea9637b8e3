"""What a refund takes from each of several holds: nothing from a kept fee, from the others in proportion."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import AnyConnection, Row
from buffer_pipeline.errors import InsufficientFunds, RuleRefused
from buffer_pipeline.money import format_amount, split_in_proportion
from buffer_pipeline.rules import HoldRule, OnRefund, read_rules
from buffer_pipeline.shares import ShareKind

_NAMED_MAX: Final = 3
"""So many kept fees are named in a refusal."""


def kept_fees(connection: AnyConnection, holds: Iterable[Row]) -> dict[int, HoldRule]:
    """Return the rules of the FEE shares that are kept on a refund, by hold.

    Each row has hold_id, kind and rule_id.
    """
    fees = {
        hold["hold_id"]: hold["rule_id"]
        for hold in holds
        if hold["kind"] == ShareKind.FEE and hold["rule_id"] is not None
    }
    if not fees:
        return {}
    rules = read_rules(connection, fees.values())
    return {
        hold_id: rules[rule_id]
        for hold_id, rule_id in fees.items()
        if rules[rule_id].fee_on_refund is OnRefund.KEEP
    }


def split_refund(
    connection: AnyConnection,
    holds: Sequence[Row],
    *,
    chosen: Collection[int],
    kept: Mapping[int, HoldRule],
    amount_minor: int | None,
    what: str,
    whose: str,
    hold_id: int | None = None,
    backjob_id: int | None = None,
) -> list[int]:
    """Return what is refunded of each hold, in minor units: 0 of a hold that is not chosen or is a kept fee.

    All that the others hold is refunded, or `amount_minor` of it, split in proportion (largest remainder);
    then the chosen holds are in one currency. Each row has hold_id, currency and amount_minor. A refusal
    begins with `what`, and `whose` says what holds the money.

    Raises:
        RuleRefused: all of the chosen holds are kept fees.
        InsufficientFunds: `amount_minor` is above what can be refunded.
    """
    asked = [hold for hold in holds if hold["hold_id"] in chosen]
    held = [
        hold["amount_minor"] if hold["hold_id"] in chosen and hold["hold_id"] not in kept else 0
        for hold in holds
    ]
    if not any(held):
        first = next(hold["hold_id"] for hold in asked if hold["hold_id"] in kept)
        raise RuleRefused(
            f"{what}: nothing to refund; {'; '.join(_kept_texts(connection, asked, kept))}",
            hold_id=first,
            backjob_id=backjob_id,
            rule=kept[first].name,
        )
    if amount_minor is None:
        return held
    if amount_minor > sum(held):
        currency = asked[0]["currency"]
        places = places_of(connection)[currency]
        raise InsufficientFunds(
            f"{what}: {format_amount(amount_minor, places)} {currency} is above"
            f" the {format_amount(sum(held), places)} that {whose}"
            + "".join(f"; {fee}" for fee in _kept_texts(connection, asked, kept)),
            hold_id=hold_id,
            backjob_id=backjob_id,
        )
    return split_in_proportion(amount_minor, held)


def _kept_texts(connection: AnyConnection, holds: Iterable[Row], kept: Mapping[int, HoldRule]) -> list[str]:
    places = places_of(connection)
    fees = [
        f"the fee of {format_amount(hold['amount_minor'], places[hold['currency']])} {hold['currency']},"
        f" hold {hold['hold_id']}, is kept by {kept[hold['hold_id']]}"
        for hold in holds
        if hold["hold_id"] in kept
    ]
    more = len(fees) - _NAMED_MAX
    return [*fees[:_NAMED_MAX], f"and {more} more fees are kept"] if more > 0 else fees
