"""Money: integers in the currency's minor unit inside the package, `Decimal` and text at its edges."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Any, Final

from buffer_pipeline.errors import InvalidInput, WalletFull

Places = Mapping[str, int]
"""Currency -> decimal places, as in the books of one database."""

NO_PLACES: Final[Places] = {}

AMOUNT_MINOR_MAX: Final = 10**15
"""The largest amount of one transaction."""

WALLET_MINOR_MAX: Final = 2**63 - 1
"""The largest sum of a wallet's balance and pending earnings: the limit of a bigint, enforced by a CHECK."""

_MINOR: Final = "_minor"
_DIGITS_MAX: Final = 30
_PLAIN_DECIMAL: Final = re.compile(rf"[+-]?[0-9]{{1,{_DIGITS_MAX}}}(\.[0-9]{{1,{_DIGITS_MAX}}})?")


@cache
def listed_places(currency: str) -> int:
    """Return a currency's decimal places in the installed ISO 4217 list (list one).

    Only for a currency that is new to the books. The others have stored places: `currencies.places_of`.

    Raises:
        InvalidInput: not a current ISO 4217 code, or one without a minor unit (gold, test codes).
    """
    from iso4217 import Currency  # noqa: PLC0415 - reads its list; only a new currency needs it

    try:
        exponent = Currency(currency).exponent
    except ValueError:
        raise InvalidInput(f"currency {currency!r}: not an ISO 4217 code, such as PHP or JPY") from None
    if exponent is None:
        raise InvalidInput(f"currency {currency!r}: has no minor unit, so it cannot be held")
    return int(exponent)


def parse_amount(amount: Decimal | int | str, currency: str, places: int) -> int:
    """Return a positive amount in minor units of a currency with `places` decimal places.

    ("10.50", "PHP", 2) is 1050, and so is ("10.5000", "PHP", 2).

    Raises:
        InvalidInput: not a plain decimal number, not positive, more places than the currency has (apart
            from zeros at the end), or above `AMOUNT_MINOR_MAX`. A float is refused, because it is not exact.
    """
    if isinstance(amount, bool | float) or not isinstance(amount, Decimal | int | str):
        raise InvalidInput(f"amount {amount!r}: needs a Decimal, an int or text, never a float")
    if isinstance(amount, int) and abs(amount) >= 10**_DIGITS_MAX:
        # Checked before it becomes text: Python cannot write an int of more than 4,300 digits.
        raise InvalidInput(f"amount: an int of more than {_DIGITS_MAX} digits; not a number such as 1250.50")
    if isinstance(amount, Decimal) and amount.is_finite() and abs(amount.adjusted()) <= _DIGITS_MAX:
        text = f"{amount:f}"
    else:
        text = str(amount).strip()
    if not _PLAIN_DECIMAL.fullmatch(text):
        raise InvalidInput(f"amount {str(amount)[:60]!r}: not a plain decimal number, such as 1250.50")
    whole, _, fraction = text.partition(".")
    if whole.startswith("-") or not (whole + fraction).strip("+0"):
        raise InvalidInput(f"amount {text}: must be above zero")
    # Zeros at the end do not count: Decimal("1500.00") is 1500 JPY.
    fraction = fraction[:places] + fraction[places:].rstrip("0")
    if len(fraction) > places:
        raise InvalidInput(f"amount {text}: {currency} has {places} places, this has {len(fraction)}")
    # From the digits, because Decimal's arithmetic rounds as the caller's context says.
    amount_minor = int(whole + fraction.ljust(places, "0"))
    if amount_minor > AMOUNT_MINOR_MAX:
        raise InvalidInput(
            f"amount {text}: too large; at most {format_amount(AMOUNT_MINOR_MAX, places)} {currency}"
        )
    return amount_minor


def format_amount(amount_minor: int, places: int) -> str:
    """Return an amount as text with exactly `places` decimal places: (1050, 2) is "10.50"."""
    digits = str(abs(amount_minor)).rjust(places + 1, "0")
    point = len(digits) - places
    sign = "-" if amount_minor < 0 else ""
    return f"{sign}{digits[:point]}" + (f".{digits[point:]}" if places else "")


def with_amounts(row: Mapping[str, Any], places: Places, currency: object) -> dict[str, Any]:
    """Return the row with its minor units as amounts in `currency`: `amount_minor` 1050 is `amount` "10.50".

    If the currency is not in `places`, which happens only in broken books, the row is returned unchanged.
    """
    if not isinstance(currency, str) or currency not in places:
        return dict(row)
    return {
        name.removesuffix(_MINOR): format_amount(int(value), places[currency])
        if name.endswith(_MINOR) and value is not None
        else value
        for name, value in row.items()
    }


def wallet_full(owner: str, amount_minor: int, currency: str, places: int) -> WalletFull:
    """Return the refusal of an amount that an owner's wallet cannot take."""
    return WalletFull(
        f"wallet of {owner!r}: cannot take {format_amount(amount_minor, places)} {currency} more;"
        f" a wallet holds at most {format_amount(WALLET_MINOR_MAX, places)}",
        owner=owner,
    )


def split_in_proportion(total: int, weights: Sequence[int]) -> list[int]:
    """Split `total` over `weights` in proportion, to the last unit.

    No share is larger than its weight, because `total` is not larger than their sum.
    """
    whole = sum(weights)
    assert 0 <= total <= whole, "a split cannot exceed what there is"
    if whole == 0:
        return [0] * len(weights)
    return largest_remainder(total, [total * weight for weight in weights], whole)


def largest_remainder(total: int, numerators: Sequence[int], denominator: int) -> list[int]:
    """Round exact shares, `numerators` over `denominator`, whose sum is `total`, to integers with that sum.

    The largest-remainder method (Hamilton, 1792): each share is rounded down, and the units left over go to
    the largest remainders, the earlier one on a tie.
    """
    shares = [numerator // denominator for numerator in numerators]
    by_remainder = sorted(
        range(len(numerators)), key=lambda place: (-(numerators[place] % denominator), place)
    )
    for place in by_remainder[: total - sum(shares)]:
        shares[place] += 1
    return shares
