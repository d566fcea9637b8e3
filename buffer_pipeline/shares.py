"""Shares: the parts of an earning, each for one owner with a release date of its own. Pure: no database.

A share becomes a hold. The amounts of the shares add up to the earning, to the last minor unit.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Final

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.inputs import LATEST, outside_the_years, require_text, require_time
from buffer_pipeline.money import format_amount, largest_remainder, parse_amount
from buffer_pipeline.policy import BUFFER_DAYS_MAX

SHARES_MAX: Final = 20
"""Most shares of one earning."""

PERCENT_PLACES: Final = 4
"""Most decimal places of a percent: 12.3456 %."""


class ShareKind(StrEnum):
    """What a share is for. RESERVE is the payee's too, and is kept longer."""

    PAYEE = "PAYEE"
    FEE = "FEE"
    TAX = "TAX"
    RESERVE = "RESERVE"


@dataclass(frozen=True, kw_only=True)
class Share:
    """A part of an earning, as the platform states it.

    `owner` is the payee of the earning by default; a FEE and a TAX must name theirs. `amount` is in the
    currency's major unit, `percent` is of the whole earning. At most one share has neither: it takes the
    rest. Without a date (`release_date`, or `days` after the hold began) it has the earning's.
    """

    kind: ShareKind
    owner: str | None = None
    amount: Decimal | int | str | None = None
    percent: Decimal | int | str | None = None
    release_date: datetime | None = None
    days: int | None = None


@dataclass(frozen=True, slots=True)
class PlannedShare:
    """A share as it will be held. Without `release_date` and `days` it has the earning's release date."""

    kind: ShareKind
    owner: str
    amount_minor: int
    release_date: datetime | None = None
    days: int | None = None


def parse_percent(name: str, percent: Decimal | int | str) -> Fraction:
    """Return a percent above 0 and up to 100 as an exact fraction: "12.5" is 1/8.

    Raises:
        InvalidInput: not a plain decimal number, outside these limits, or with more than PERCENT_PLACES
            places. A float is refused, because it is not exact.
    """
    if isinstance(percent, bool | float) or not isinstance(percent, Decimal | int | str):
        raise InvalidInput(f"{name} {percent!r}: needs a Decimal, an int or text, never a float")
    try:
        # As an amount with these places: the same digits, the same refusals.
        scaled = parse_amount(percent, "a percent", PERCENT_PLACES)
    except InvalidInput as refusal:
        raise InvalidInput(f"{name}: {str(refusal).removeprefix('amount ')}") from None
    if scaled > 100 * 10**PERCENT_PLACES:
        raise InvalidInput(f"{name} {percent}: above 100")
    return Fraction(scaled, 100 * 10**PERCENT_PLACES)


def plan_shares(
    shares: Sequence[Share],
    *,
    payee: str,
    payer: str,
    amount_minor: int,
    currency: str,
    places: int,
) -> tuple[PlannedShare, ...]:
    """Divide an earning of `amount_minor` into `shares`; the payee's own share comes first.

    What a percent does not divide evenly goes to the largest remainders. A share that rounds to nothing is
    left out.

    Raises:
        InvalidInput: a value that cannot be accepted, shares that do not add up to the earning, or nothing
            for the payee; the message names the share.
    """
    if not 0 < len(shares) <= SHARES_MAX:
        raise InvalidInput(f"shares: {len(shares)}; at least one and at most {SHARES_MAX}")
    checked = [_checked(number, share, payee=payee, payer=payer) for number, share in enumerate(shares, 1)]
    owns = [(share.kind, owner) for share, owner in checked]
    if owns.count((ShareKind.PAYEE, payee)) != 1:
        raise InvalidInput(
            f"shares: {owns.count((ShareKind.PAYEE, payee))} PAYEE shares are for {payee!r}; needs one"
        )
    exact = _exact(checked, amount_minor=amount_minor, currency=currency, places=places)
    planned = [
        PlannedShare(ShareKind(share.kind), owner, share_minor, share.release_date, share.days)
        for (share, owner), share_minor in zip(checked, round_shares(amount_minor, exact), strict=True)
    ]
    first = owns.index((ShareKind.PAYEE, payee))
    if not planned[first].amount_minor:
        raise InvalidInput(f"shares: nothing is left for payee {payee!r}")
    others = [*planned[:first], *planned[first + 1 :]]
    return (planned[first], *(share for share in others if share.amount_minor))


def round_shares(amount_minor: int, exact: Sequence[Fraction]) -> list[int]:
    """Round shares that add up to `amount_minor` by the largest-remainder method."""
    denominator = math.lcm(*(share.denominator for share in exact))
    numerators = [share.numerator * (denominator // share.denominator) for share in exact]
    return largest_remainder(amount_minor, numerators, denominator)


def share_date(share: PlannedShare, *, held_at: datetime, release_date: datetime) -> datetime:
    """Return the release date of a share of an earning that is held from `held_at` to `release_date`."""
    if share.days is not None:
        return held_at + timedelta(days=share.days)
    return share.release_date or release_date


def misdated(share: PlannedShare, *, held_at: datetime, release_date: datetime) -> InvalidInput | None:
    """Return why a share cannot have this release date: it is before `held_at`, or too far away."""
    if release_date >= LATEST:
        return outside_the_years("release_date", release_date)
    if held_at <= release_date:
        return None
    return InvalidInput(
        f"{share.kind} share of {share.owner!r}: release_date {release_date.isoformat()}"
        f" lies before held_at {held_at.isoformat()}"
    )


def _checked(number: int, share: Share, *, payee: str, payer: str) -> tuple[Share, str]:
    name = f"share {number}"
    try:
        kind = ShareKind(share.kind)
    except ValueError:
        raise InvalidInput(f"{name}: kind {share.kind!r} is not one of {', '.join(ShareKind)}") from None
    name = f"{name} ({kind})"
    if share.owner is None and kind in (ShareKind.FEE, ShareKind.TAX):
        raise InvalidInput(f"{name}: needs an owner")
    owner = payee if share.owner is None else require_text(f"{name}: owner", share.owner)
    if owner == payer:
        raise InvalidInput(f"{name}: its owner {owner!r} is the payer")
    if kind is ShareKind.RESERVE and owner != payee:
        raise InvalidInput(f"{name}: is for {owner!r}; a reserve is the payee's, {payee!r}")
    if share.amount is not None and share.percent is not None:
        raise InvalidInput(f"{name}: has an amount and a percent; give one of them")
    if share.release_date is not None and share.days is not None:
        raise InvalidInput(f"{name}: has a release_date and days; give one of them")
    if share.days is not None and not (
        isinstance(share.days, int)
        and not isinstance(share.days, bool)
        and 0 <= share.days <= BUFFER_DAYS_MAX
    ):
        raise InvalidInput(f"{name}: days {share.days!r}; an int from 0 to {BUFFER_DAYS_MAX}")
    if share.release_date is not None:
        require_time(f"{name}: release_date", share.release_date)
    return share, owner


def _exact(
    checked: Iterable[tuple[Share, str]], *, amount_minor: int, currency: str, places: int
) -> list[Fraction]:
    """Return the exact minor units of each share, which add up to `amount_minor`."""
    exact: list[Fraction | None] = []
    for number, (share, _) in enumerate(checked, 1):
        name = f"share {number} ({share.kind})"
        if share.amount is not None:
            try:
                exact.append(Fraction(parse_amount(share.amount, currency, places)))
            except InvalidInput as refusal:
                raise InvalidInput(f"{name}: {refusal}") from None
        elif share.percent is not None:
            exact.append(parse_percent(f"{name}: percent", share.percent) * amount_minor)
        else:
            exact.append(None)
    given = sum((part for part in exact if part is not None), Fraction(0))
    open_shares = exact.count(None)
    if open_shares > 1:
        raise InvalidInput(
            f"shares: {open_shares} have neither an amount nor a percent; at most one takes the rest"
        )
    rest = amount_minor - given
    if rest < 0 or (rest > 0 and not open_shares):
        raise InvalidInput(
            f"shares: add up to {_shown(given, places)} {currency}, the earning is"
            f" {format_amount(amount_minor, places)}"
        )
    return [rest if part is None else part for part in exact]


def _shown(minor: Fraction, places: int) -> str:
    if minor.denominator == 1:
        return format_amount(int(minor), places)
    return f"about {format_amount(round(minor), places)}"
