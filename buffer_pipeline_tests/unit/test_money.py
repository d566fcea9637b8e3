"""Conversion of amounts to and from minor units, and splitting them to the last unit."""

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buffer_pipeline.errors import InvalidInput, Refused
from buffer_pipeline.money import (
    AMOUNT_MINOR_MAX,
    format_amount,
    listed_places,
    parse_amount,
    split_in_proportion,
)


@pytest.mark.parametrize(
    ("currency", "places"), [("PHP", 2), ("USD", 2), ("JPY", 0), ("KRW", 0), ("KWD", 3), ("CLF", 4)]
)
def test_places_follow_iso_4217(currency: str, places: int) -> None:
    """A currency has ISO 4217's decimal places."""
    assert listed_places(currency) == places


@pytest.mark.parametrize("currency", ["", "php", "PESO", "QQQ", "PH", " PHP", "P\u0124P", "PHP\n", "608"])
def test_unknown_currency_is_refused(currency: str) -> None:
    """By name."""
    with pytest.raises(InvalidInput, match="not an ISO 4217 code") as refusal:
        listed_places(currency)

    assert repr(currency) in str(refusal.value)


@pytest.mark.parametrize("currency", ["XAU", "XTS", "XXX"])
def test_currency_without_minor_unit_is_refused(currency: str) -> None:
    """Gold, test codes and "no currency" have no minor unit."""
    with pytest.raises(InvalidInput, match="no minor unit"):
        listed_places(currency)


@pytest.mark.parametrize(
    ("amount", "currency", "amount_minor"),
    [
        ("10.50", "PHP", 1050),
        ("10.5", "PHP", 1050),
        ("10", "PHP", 1000),
        (10, "PHP", 1000),
        (Decimal("10.50"), "PHP", 1050),
        (Decimal("1E+3"), "PHP", 100_000),
        ("0.01", "PHP", 1),
        ("1250", "JPY", 1250),
        (Decimal("0.001"), "KWD", 1),
        ("1.234", "KWD", 1234),
        ("10000000000000.00", "PHP", AMOUNT_MINOR_MAX),
        ("1000000000000000", "JPY", AMOUNT_MINOR_MAX),
        ("0010.00", "PHP", 1000),
        (" 10.50 ", "PHP", 1050),
        # Exact, with zeros beyond the currency's places.
        ("10.5000", "PHP", 1050),
        (Decimal("1500.00"), "JPY", 1500),
        ("0.010" + "0" * 20, "PHP", 1),
        ("1.2340", "KWD", 1234),
    ],
)
def test_amount_is_read_to_the_minor_unit(
    amount: Decimal | int | str, currency: str, amount_minor: int
) -> None:
    """An amount in the major unit becomes an integer of minor units."""
    assert parse_amount(amount, currency, listed_places(currency)) == amount_minor


@pytest.mark.parametrize("amount", ["-0.01", "0", "0.00", "-1", -1, 0, Decimal(0), Decimal("-0.00")])
def test_amount_not_above_zero_is_refused(amount: Decimal | int | str) -> None:
    """Zero and negative amounts."""
    with pytest.raises(InvalidInput, match="must be above zero"):
        parse_amount(amount, "PHP", 2)


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        ("10.505", "PHP"),
        ("0.001", "PHP"),
        ("10.5001", "PHP"),
        ("1.5", "JPY"),
        (Decimal("1.50"), "JPY"),
        ("1.2345", "KWD"),
        (Decimal("1E-30"), "PHP"),
    ],
)
def test_more_places_than_the_currency_has_are_refused(amount: Decimal | str, currency: str) -> None:
    """An amount is never rounded."""
    with pytest.raises(InvalidInput, match=f"{currency} has {listed_places(currency)} places"):
        parse_amount(amount, currency, listed_places(currency))


@pytest.mark.parametrize(("amount", "places"), [("1.50500", 3), ("1.5050005", 7), ("1.00100", 3)])
def test_trailing_zeros_are_not_counted(amount: str, places: int) -> None:
    """In the message about too many places."""
    with pytest.raises(InvalidInput, match=f"^amount {amount}: PHP has 2 places, this has {places}$"):
        parse_amount(amount, "PHP", 2)


@pytest.mark.parametrize("amount", [10**30, -(10**30)])
def test_int_that_is_too_long_to_print_is_refused(amount: int) -> None:
    """Python prints no int of more than 4,300 digits, so its length is checked first."""
    with pytest.raises(InvalidInput, match=r"^amount: an int of more than 30 digits; not a number such as"):
        parse_amount(amount, "PHP", 2)


@pytest.mark.parametrize(
    ("amount", "currency"),
    [("10000000000000.01", "PHP"), ("1000000000000001", "JPY"), (10**20, "PHP"), ("9" * 30, "PHP")],
)
def test_too_large_amount_is_refused_with_the_largest(amount: int | str, currency: str) -> None:
    """The message has the largest amount."""
    with pytest.raises(InvalidInput, match="too large") as refusal:
        parse_amount(amount, currency, listed_places(currency))

    assert format_amount(AMOUNT_MINOR_MAX, listed_places(currency)) in str(refusal.value)


@pytest.mark.parametrize(
    "amount",
    [
        "",
        " ",
        "ten",
        "1,250.50",
        "1 250",
        "1e3",
        "0x10",
        "NaN",
        "Infinity",
        "-Infinity",
        ".5",
        "5.",
        "--5",
        "10.50\x00",
        "\u0661\u0662",
        "1_000",
        "9" * 31,
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        Decimal("1E+4000"),
    ],
)
def test_non_decimal_amount_is_refused(amount: Decimal | str) -> None:
    """Only digits with at most one point are an amount."""
    with pytest.raises(InvalidInput, match="not a plain decimal number"):
        parse_amount(amount, "PHP", 2)


def test_refusal_repeats_only_the_beginning() -> None:
    """Sixty characters of an overlong amount."""
    with pytest.raises(InvalidInput) as refusal:
        parse_amount("1" + "2" * 58 + "34", "PHP", 2)

    assert str(refusal.value) == (f"amount '1{'2' * 58}3': not a plain decimal number, such as 1250.50")


@pytest.mark.parametrize("amount", [10.5, float("nan"), 1.0, True, False, None, b"10", [10]])
def test_float_and_other_types_are_refused(amount: object) -> None:
    """A float is inexact; other types are no numbers."""
    with pytest.raises(InvalidInput, match="never a float"):
        parse_amount(amount, "PHP", 2)  # type: ignore[arg-type]


def test_invalid_input_is_a_refusal_and_a_value_error() -> None:
    """Callers can catch either."""
    assert issubclass(InvalidInput, Refused)
    assert issubclass(InvalidInput, ValueError)


def test_amounts_do_not_depend_on_the_callers_decimal_context() -> None:
    """A caller's precision of six digits changes no amount."""
    with localcontext(prec=6):
        amount_minor = parse_amount("12345678.91", "PHP", 2)
        amount = format_amount(1234567891, 2)

    assert amount_minor == 1234567891
    assert amount == "12345678.91"


@pytest.mark.parametrize(
    ("amount_minor", "currency", "amount"),
    [
        (1050, "PHP", "10.50"),
        (1, "PHP", "0.01"),
        (0, "PHP", "0.00"),
        (-1050, "PHP", "-10.50"),
        (1050, "JPY", "1050"),
        (1050, "KWD", "1.050"),
        (AMOUNT_MINOR_MAX, "PHP", "10000000000000.00"),
        (9 * 10**18, "PHP", "90000000000000000.00"),
    ],
)
def test_amount_is_written_with_the_currencys_places(amount_minor: int, currency: str, amount: str) -> None:
    """Never in scientific notation."""
    assert format_amount(amount_minor, listed_places(currency)) == amount


@given(
    amount_minor=st.integers(min_value=1, max_value=AMOUNT_MINOR_MAX),
    currency=st.sampled_from(["PHP", "JPY", "KWD", "USD"]),
)
def test_formatted_amount_reads_back(amount_minor: int, currency: str) -> None:
    """As text or Decimal, to the same minor units."""
    text = format_amount(amount_minor, listed_places(currency))

    assert parse_amount(text, currency, listed_places(currency)) == amount_minor
    assert parse_amount(Decimal(text), currency, listed_places(currency)) == amount_minor


WEIGHTS = st.lists(st.integers(min_value=0, max_value=AMOUNT_MINOR_MAX), min_size=1, max_size=30)


@given(weights=WEIGHTS, data=st.data())
def test_split_parts_add_up_within_their_weights(weights: list[int], data: st.DataObject) -> None:
    """The parts add up, none is negative, and none exceeds its weight."""
    total = data.draw(st.integers(min_value=0, max_value=sum(weights)))

    shares = split_in_proportion(total, weights)

    assert sum(shares) == total
    assert all(0 <= share <= weight for share, weight in zip(shares, weights, strict=True))


@given(weights=WEIGHTS, data=st.data())
def test_split_is_within_one_unit_of_the_exact_share(weights: list[int], data: st.DataObject) -> None:
    """Of the exact proportion."""
    total = data.draw(st.integers(min_value=0, max_value=sum(weights)))

    shares = split_in_proportion(total, weights)

    whole = sum(weights)
    assert all(
        abs(share * whole - total * weight) < whole or whole == 0
        for share, weight in zip(shares, weights, strict=True)
    )


@pytest.mark.parametrize(
    ("total", "weights", "shares"),
    [
        (100, [1000, 1000, 1000], [34, 33, 33]),
        (10, [50, 30, 20], [5, 3, 2]),
        (5, [1, 2, 6], [1, 1, 3]),
        (1, [1, 1], [1, 0]),
        (0, [5, 5], [0, 0]),
        (10, [5, 5], [5, 5]),
        (7, [7], [7]),
        (0, [0, 0], [0, 0]),
        (0, [], []),
    ],
)
def test_split_is_by_largest_remainder(total: int, weights: list[int], shares: list[int]) -> None:
    """Remaining units go to the largest remainders, the earlier one on a tie."""
    assert split_in_proportion(total, weights) == shares


def test_split_of_more_than_there_is_is_a_programming_error() -> None:
    """The caller must have compared the total."""
    with pytest.raises(AssertionError, match=r"^a split cannot exceed what there is"):
        split_in_proportion(3, [1, 1])
