"""Amounts in minor units, and their division."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Final

from buffer_pipeline.errors import InvalidInput

PLACES: Final = {"PHP": 2, "JPY": 0, "KWD": 3}


def minor(amount: str, currency: str) -> int:
    """Return an amount in minor units, if it is positive and has no more places than the currency."""
    number = Decimal(amount)
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    if number <= 0:
        raise InvalidInput("not above zero")
    if -exponent > PLACES[currency]:
        raise InvalidInput("too many places")
    return int(number * 10 ** PLACES[currency])


def largest_remainder(total: int, weights: Sequence[int | Fraction]) -> list[int]:
    """Round each share down and add one unit to the largest remainders, the earlier one on a tie."""
    exact = [Fraction(total) * weight / sum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    remainders = [share - int(share) for share in exact]
    while sum(shares) < total:
        largest = remainders.index(max(remainders))
        shares[largest] += 1
        remainders[largest] = Fraction(-1)
    return shares
