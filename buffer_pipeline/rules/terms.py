"""Checks of the terms of a new version of a rule."""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final, TypeVar

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.inputs import require_text
from buffer_pipeline.money import format_amount, parse_amount
from buffer_pipeline.policy import BACKJOBS_PER_JOB_MAX, BUFFER_DAYS_MAX, COOLDOWN_HOURS_MAX
from buffer_pipeline.rules.rule import OnRefund, TaxOf
from buffer_pipeline.shares import PERCENT_PLACES, parse_percent

_HUNDRED: Final = 100 * 10**PERCENT_PLACES
_SHOWN_MAX: Final = 10**30

Word = TypeVar("Word", bound=StrEnum)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The terms as they are stored, by the names of the columns."""

    days: int | None
    min_days: int | None
    cooldown_hours: int | None
    max_backjobs: int | None
    fee_percent: Decimal | None
    fee_fixed_minor: int | None
    fee_owner: str | None
    fee_on_refund: OnRefund | None
    tax_percent: Decimal | None
    tax_of: TaxOf | None
    tax_owner: str | None
    reserve_percent: Decimal | None
    reserve_days: int | None
    recovery_percent: Decimal | None


def check_terms(
    *,
    currency: str | None,
    places: int | None,
    default_days: int,
    days: int | None,
    min_days: int | None,
    cooldown_hours: int | None,
    max_backjobs: int | None,
    fee_percent: Decimal | int | str | None,
    fee_fixed: Decimal | int | str | None,
    fee_owner: str | None,
    fee_on_refund: str | None,
    tax_percent: Decimal | int | str | None,
    tax_of: str | None,
    tax_owner: str | None,
    reserve_percent: Decimal | int | str | None,
    reserve_days: int | None,
    recovery_percent: Decimal | int | str | None,
) -> Terms:
    """Return the terms with their amounts in minor units and their percents as decimals.

    `places` are those of `currency`. `default_days` are what a rule without `days` has.

    Raises:
        InvalidInput: a value that cannot be accepted, a part of a fee, a tax or a reserve without the rest
            of it, or terms that leave nothing for the payee; the message names the term.
    """
    _require_number("days", days, BUFFER_DAYS_MAX)
    _require_number("min_days", min_days, BUFFER_DAYS_MAX)
    _require_number("cooldown_hours", cooldown_hours, COOLDOWN_HOURS_MAX)
    _require_number("max_backjobs", max_backjobs, BACKJOBS_PER_JOB_MAX)
    _require_number("reserve_days", reserve_days, BUFFER_DAYS_MAX)
    held_days = default_days if days is None else days
    if min_days is not None and min_days > held_days:
        raise InvalidInput(f"min_days {min_days}: above days, {held_days}")
    fee = _percent("fee_percent", fee_percent)
    tax = _percent("tax_percent", tax_percent)
    reserve = _percent("reserve_percent", reserve_percent)
    fee_fixed_minor = _fixed(fee_fixed, currency, places)
    has_fee = fee is not None or fee_fixed_minor is not None
    _require_whole("fee_owner", fee_owner, with_=has_fee, rest="fee_percent or fee_fixed")
    if not has_fee and fee_on_refund is not None:
        raise InvalidInput(f"fee_on_refund {fee_on_refund}: needs a fee_percent or fee_fixed")
    on_refund = None if fee_on_refund is None else _word("fee_on_refund", fee_on_refund, OnRefund)
    of = None if tax_of is None else _word("tax_of", tax_of, TaxOf)
    _require_whole("tax_owner", tax_owner, with_=tax is not None, rest="tax_percent")
    _require_whole("tax_of", of, with_=tax is not None, rest="tax_percent")
    _require_whole("reserve_days", reserve_days, with_=reserve is not None, rest="reserve_percent")
    # A tax of what the fee leaves always leaves something: each of the two is below 100.
    if of is TaxOf.GROSS and (fee or 0) + (tax or 0) >= _HUNDRED:
        raise InvalidInput(f"tax_percent {tax_percent}: with fee_percent {fee_percent} leaves nothing")
    return Terms(
        days=days,
        min_days=min_days,
        cooldown_hours=cooldown_hours,
        max_backjobs=max_backjobs,
        fee_percent=_decimal(fee),
        fee_fixed_minor=fee_fixed_minor,
        fee_owner=None if fee_owner is None else require_text("fee_owner", fee_owner),
        fee_on_refund=on_refund or (OnRefund.RETURN if has_fee else None),
        tax_percent=_decimal(tax),
        tax_of=of,
        tax_owner=None if tax_owner is None else require_text("tax_owner", tax_owner),
        reserve_percent=_decimal(reserve),
        reserve_days=reserve_days,
        recovery_percent=_decimal(_percent_to_100("recovery_percent", recovery_percent)),
    )


def _require_number(name: str, value: int | None, largest: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"{name} {value!r}: needs an int, got {type(value).__name__}")
    if not 0 <= value <= largest:
        # Python cannot write an int of more than 4,300 digits.
        shown = f" {value}" if abs(value) < _SHOWN_MAX else ""
        raise InvalidInput(f"{name}{shown}: must be from 0 to {largest}")


def _require_whole(name: str, value: object, *, with_: bool, rest: str) -> None:
    if value is None and with_:
        raise InvalidInput(f"{name}: missing; {rest} needs it")
    if value is not None and not with_:
        raise InvalidInput(f"{name} {str(value)[:60]!r}: needs a {rest}")


def _percent(name: str, percent: Decimal | int | str | None) -> int | None:
    """Return a percent in units of its last place: 12.5 is 125000."""
    if percent is None:
        return None
    scaled = int(parse_percent(name, percent) * _HUNDRED)
    if scaled == _HUNDRED:
        raise InvalidInput(f"{name} {percent}: leaves nothing; must be below 100")
    return scaled


def _percent_to_100(name: str, percent: Decimal | int | str | None) -> int | None:
    """Return a percent that may also be 0 or 100, in units of its last place."""
    if percent is None:
        return None
    if not isinstance(percent, bool | float) and str(percent).strip() in {
        "0",
        "0.0",
        "0.00",
        "0.000",
        "0.0000",
    }:
        return 0
    return int(parse_percent(name, percent) * _HUNDRED)


def _decimal(scaled: int | None) -> Decimal | None:
    # From text, because Decimal's arithmetic rounds as the caller's context says.
    return None if scaled is None else Decimal(format_amount(scaled, PERCENT_PLACES).rstrip("0").rstrip("."))


def _fixed(amount: Decimal | int | str | None, currency: str | None, places: int | None) -> int | None:
    if amount is None:
        return None
    if currency is None or places is None:
        raise InvalidInput("fee_fixed: needs a currency")
    try:
        return parse_amount(amount, currency, places)
    except InvalidInput as refusal:
        raise InvalidInput(f"fee_fixed: {refusal}") from None


def _word(name: str, value: str, words: type[Word]) -> Word:
    try:
        return words(value)
    except ValueError:
        raise InvalidInput(f"{name} {str(value)[:60]!r}: is not {' or '.join(words)}") from None
