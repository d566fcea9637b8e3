"""Shares of an earning: amounts that add up exactly, and refusals. No database."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.money import largest_remainder
from buffer_pipeline.shares import (
    PlannedShare,
    Share,
    ShareKind,
    misdated,
    parse_percent,
    plan_shares,
    round_shares,
    share_date,
)

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)

WRONG: Any = None
TIP: Any = "TIP"
FLOAT: Any = 1.5


def plan(*shares: Share, amount_minor: int = 100_000, places: int = 2) -> tuple[PlannedShare, ...]:
    """Divide an earning of worker-17 that client-3 pays."""
    return plan_shares(
        shares, payee="worker-17", payer="client-3", amount_minor=amount_minor, currency="PHP", places=places
    )


def payee(**values: Any) -> Share:
    """Return the payee's own share."""
    return Share(kind=ShareKind.PAYEE, **values)


def fee(owner: str = "platform", **values: Any) -> Share:
    """Return a fee."""
    return Share(kind=ShareKind.FEE, owner=owner, **values)


def test_the_payees_share_comes_first_and_the_rest_is_its_own() -> None:
    """A share without amount and percent gets what the others leave."""
    planned = plan(
        fee(percent="12"),
        Share(kind=ShareKind.TAX, owner="tax-office", amount="20.00", days=0),
        payee(),
        Share(kind=ShareKind.RESERVE, percent=10, days=90),
    )

    assert planned == (
        PlannedShare(ShareKind.PAYEE, "worker-17", 76_000),
        PlannedShare(ShareKind.FEE, "platform", 12_000),
        PlannedShare(ShareKind.TAX, "tax-office", 2_000, None, 0),
        PlannedShare(ShareKind.RESERVE, "worker-17", 10_000, None, 90),
    )


def test_a_team_divides_an_earning() -> None:
    """Other payees may have shares."""
    planned = plan(payee(percent=60), payee(owner="worker-18", percent=40))

    assert [(share.owner, share.amount_minor) for share in planned] == [
        ("worker-17", 60_000),
        ("worker-18", 40_000),
    ]


def test_uneven_division_goes_to_the_largest_remainder() -> None:
    """0.05 divided 12 to 88 is 0.006 and 0.044; the remaining unit goes to the fee."""
    assert [share.amount_minor for share in plan(payee(), fee(percent=12), amount_minor=5)] == [4, 1]
    assert [share.amount_minor for share in plan(payee(), fee(percent=12), amount_minor=100_01)] == [
        8801,
        1200,
    ]


def test_a_share_of_nothing_is_left_out() -> None:
    """A percentage of a tiny amount may round to nothing."""
    assert plan(payee(), fee(percent="0.5"), amount_minor=1) == (
        PlannedShare(ShareKind.PAYEE, "worker-17", 1),
    )


@given(
    amount_minor=st.integers(1, 10**15),
    percents=st.lists(st.decimals("0.0001", "24.9999", places=4), min_size=0, max_size=4),
)
def test_shares_add_up_to_the_earning(amount_minor: int, percents: list[Decimal]) -> None:
    """For any currency, each within one unit of its exact part."""
    planned = plan(
        payee(), *[fee(f"owner-{n}", percent=p) for n, p in enumerate(percents)], amount_minor=amount_minor
    )

    assert sum(share.amount_minor for share in planned) == amount_minor
    exact = {f"owner-{n}": Fraction(p) * amount_minor / 100 for n, p in enumerate(percents)}
    exact["worker-17"] = amount_minor - sum(exact.values(), Fraction(0))
    for share in planned:
        assert share.amount_minor > 0
        assert abs(share.amount_minor - exact.pop(share.owner)) < 1
    assert all(part < 1 for part in exact.values())


@given(st.lists(st.fractions(min_value=0, max_value=1000, max_denominator=999), min_size=1, max_size=9))
def test_rounding_keeps_the_sum_and_the_order(parts: list[Fraction]) -> None:
    """Each is within one unit, and of two equal parts the earlier is not smaller."""
    parts.append(-sum(parts, Fraction(0)) % 1)
    total = int(sum(parts))

    rounded = round_shares(total, parts)

    assert sum(rounded) == total
    assert all(abs(share - part) < 1 for share, part in zip(rounded, parts, strict=True))
    for number, part in enumerate(parts[:-1]):
        if part == parts[number + 1]:
            assert rounded[number] >= rounded[number + 1]


def test_largest_remainders_get_what_is_left_over() -> None:
    """10 over 1 : 1 : 1 is 4, 3, 3; over 2 : 3 : 5 it is exact."""
    assert largest_remainder(10, [10, 10, 10], 3) == [4, 3, 3]
    assert largest_remainder(10, [20, 30, 50], 10) == [2, 3, 5]


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ([fee(amount="10.00")], "0 PAYEE shares are for 'worker-17'; needs one"),
        ([payee(percent=50), payee(percent=50)], "2 PAYEE shares are for 'worker-17'; needs one"),
        ([payee(amount="900"), fee(amount="99.99")], "add up to 999.99 PHP, the earning is 1000.00"),
        ([payee(amount="900"), fee(amount="100.01")], "add up to 1000.01 PHP, the earning is 1000.00"),
        ([payee(percent=88), fee(percent=11)], "add up to 990.00 PHP"),
        ([payee(percent="33.3333"), fee(percent="66.6666")], "add up to about 1000.00 PHP"),
        ([payee(), fee(amount="1000.00")], "nothing is left for payee 'worker-17'"),
        ([payee(), fee(amount="1000.01")], "add up to 1000.01 PHP"),
        ([payee(), fee()], "2 have neither an amount nor a percent"),
        ([payee(), fee(amount="1", percent=1)], "share 2 (FEE): has an amount and a percent"),
        ([payee(), fee(owner=WRONG, amount="1")], "share 2 (FEE): needs an owner"),
        ([payee(), Share(kind=ShareKind.TAX, amount="1")], "share 2 (TAX): needs an owner"),
        ([payee(), fee(owner="client-3", amount="1")], "share 2 (FEE): its owner 'client-3' is the payer"),
        ([payee(), fee(owner="", amount="1")], "share 2 (FEE): owner: must not be empty"),
        ([payee(), fee(percent="-1")], "share 2 (FEE): percent: -1: must be above zero"),
        ([payee(), fee(percent=0)], "must be above zero"),
        ([payee(), fee(percent="100.0001")], "percent 100.0001: above 100"),
        ([payee(), fee(percent="1.23456")], "a percent has 4 places, this has 5"),
        ([payee(), fee(percent=FLOAT)], "never a float"),
        ([payee(), fee(amount="1.001")], "share 2 (FEE): amount 1.001: PHP has 2 places, this has 3"),
        ([payee(), fee(amount="-1")], "must be above zero"),
        (
            [payee(), Share(kind=ShareKind.RESERVE, owner="worker-18", percent=5)],
            "share 2 (RESERVE): is for 'worker-18'; a reserve is the payee's, 'worker-17'",
        ),
        (
            [payee(), Share(kind=TIP, owner="x", amount=1)],
            "kind 'TIP' is not one of PAYEE, FEE, TAX, RESERVE",
        ),
        ([payee(days=1, release_date=NOON)], "has a release_date and days"),
        ([payee(days=-1)], "share 1 (PAYEE): days -1; an int from 0 to 3650"),
        ([payee(days=3651)], "days 3651"),
        ([payee(days=True)], "days True"),
        (
            [payee(release_date=datetime(2026, 3, 9))],  # noqa: DTZ001
            "share 1 (PAYEE): release_date 2026-03-09T00:00:00: has no time zone",
        ),
        ([payee()] * 21, "shares: 21; at least one and at most 20"),
    ],
)
def test_invalid_shares_are_refused(shares: list[Share], words: str) -> None:
    """The refusal names the share and the fault."""
    with pytest.raises(InvalidInput) as refusal:
        plan(*shares)

    assert words in str(refusal.value)


def test_a_share_keeps_its_date_and_its_days() -> None:
    """Up to the largest number of shares and of days."""
    dated = payee(release_date=NOON)
    planned = plan(dated, *[fee(f"platform-{number}", percent=1, days=3650) for number in range(19)])

    assert [(share.release_date, share.days) for share in planned] == [(NOON, None), *[(None, 3650)] * 19]


def test_a_percent_is_exact() -> None:
    """12.5 % is one eighth, and 0.0001 % a millionth."""
    assert parse_percent("fee", "12.5") == Fraction(1, 8)
    assert parse_percent("fee", Decimal("0.0001")) == Fraction(1, 10**6)
    assert parse_percent("fee", 100) == 1


def test_a_share_has_a_date_of_its_own_or_the_earnings() -> None:
    """Days count from the beginning of the hold."""
    week = NOON + timedelta(days=7)

    def date_of(**values: Any) -> datetime:
        return share_date(
            PlannedShare(ShareKind.PAYEE, "worker-17", 1, **values), held_at=NOON, release_date=week
        )

    assert date_of() == week
    assert date_of(days=0) == NOON
    assert date_of(days=90) == NOON + timedelta(days=90)
    assert date_of(release_date=week + timedelta(days=1)) == week + timedelta(days=1)


def test_a_date_before_the_hold_or_too_far_away_is_refused() -> None:
    """The refusal names the share."""
    share = PlannedShare(ShareKind.PAYEE, "worker-17", 1)

    def refusal_of(release_date: datetime) -> str:
        return str(misdated(share, held_at=NOON, release_date=release_date))

    assert misdated(share, held_at=NOON, release_date=NOON) is None
    assert refusal_of(NOON - timedelta(days=1)).startswith(
        "PAYEE share of 'worker-17': release_date 2026-03-01T12:00:00+00:00 lies before"
    )
    assert refusal_of(datetime(3000, 1, 1, tzinfo=UTC)).startswith(
        "release_date 3000-01-01T00:00:00+00:00: lies"
    )
