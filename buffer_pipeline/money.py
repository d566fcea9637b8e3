"""Money: integers in the currency's minor unit inside, `Decimal` and text at the edges."""

import re
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from typing import Final

from iso4217 import Currency

from buffer_pipeline.errors import InvalidInput, WalletFull

AMOUNT_MINOR_MAX: Final = 10**15
"""The largest amount of one transaction."""

WALLET_MINOR_MAX: Final = 2**63 - 1
"""The most that a wallet's balance and pending earnings come to together: a bigint's end, held by a CHECK."""

_DIGITS_MAX: Final = 30
_PLAIN_DECIMAL: Final = re.compile(rf"[+-]?[0-9]{{1,{_DIGITS_MAX}}}(\.[0-9]{{1,{_DIGITS_MAX}}})?")


@cache
def listed_places(currency: str) -> int:
    """Return how many decimal places a currency has by ISO 4217 (list one), as installed.

    For a currency that comes in anew. What is in the books has the places that stand there:
    `currencies.places_of`.

    Raises:
        InvalidInput: not a current ISO 4217 code, or one without a minor unit (gold, test codes).
    """
    try:
        exponent = Currency(currency).exponent
    except ValueError:
        raise InvalidInput(f"currency {currency!r}: not an ISO 4217 code, such as PHP or JPY") from None
    if exponent is None:
        raise InvalidInput(f"currency {currency!r}: has no minor unit, so it cannot be held")
    return int(exponent)


def parse_amount(amount: Decimal | int | str, currency: str, places: int) -> int:
    """Return a positive amount in minor units of a currency with so many places.

    ("10.50", "PHP", 2) is 1050, and so is ("10.5000", "PHP", 2).

    Raises:
        InvalidInput: not a plain decimal number, not positive, more places than the currency has
            (zeros at the end apart), or above `AMOUNT_MINOR_MAX`. A float is refused: it has lost its cents.
    """
    if isinstance(amount, bool | float) or not isinstance(amount, Decimal | int | str):
        raise InvalidInput(f"amount {amount!r}: needs a Decimal, an int or text, never a float")
    if isinstance(amount, int) and abs(amount) >= 10**_DIGITS_MAX:
        # Before its text: Python writes no int of more than 4,300 digits.
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
    # Zeros at the end say nothing: Decimal("1500.00") is 1500 JPY.
    fraction = fraction[:places] + fraction[places:].rstrip("0")
    if len(fraction) > places:
        raise InvalidInput(f"amount {text}: {currency} has {places} places, this has {len(fraction)}")
    # From the digits, since Decimal's arithmetic rounds to whatever context the caller has set.
    amount_minor = int(whole + fraction.ljust(places, "0"))
    if amount_minor > AMOUNT_MINOR_MAX:
        raise InvalidInput(
            f"amount {text}: too large; at most {format_amount(AMOUNT_MINOR_MAX, places)} {currency}"
        )
    return amount_minor


def format_amount(amount_minor: int, places: int) -> str:
    """Return an amount as text with exactly so many places: (1050, 2) is "10.50"."""
    digits = str(abs(amount_minor)).rjust(places + 1, "0")
    point = len(digits) - places
    sign = "-" if amount_minor < 0 else ""
    return f"{sign}{digits[:point]}" + (f".{digits[point:]}" if places else "")


def wallet_full(owner: str, amount_minor: int, currency: str, places: int) -> WalletFull:
    """Return the refusal of an amount that an owner's wallet cannot take."""
    return WalletFull(
        f"wallet of {owner!r}: cannot take {format_amount(amount_minor, places)} {currency} more;"
        f" a wallet holds at most {format_amount(WALLET_MINOR_MAX, places)}",
        owner=owner,
    )


def split_in_proportion(total: int, weights: Sequence[int]) -> list[int]:
    """Split `total` over `weights` in proportion, to the last unit.

    The largest-remainder method (Hamilton, 1792): everyone gets the rounded-down share,
    and the units left over go to the largest remainders, the earlier one on a tie.
    No share exceeds its weight while `total` does not exceed their sum.
    """
    whole = sum(weights)
    assert 0 <= total <= whole, "a split cannot exceed what there is"
    if whole == 0:
        return [0] * len(weights)
    shares = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda place: (-(total * weights[place] % whole), place))
    for place in by_remainder[: total - sum(shares)]:
        shares[place] += 1
    return shares
