"""The shares that a rule makes of an earning: exact, to the last minor unit."""

from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any, Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from buffer_pipeline.errors import InvalidInput, RuleRefused
from buffer_pipeline.money import AMOUNT_MINOR_MAX, parse_amount
from buffer_pipeline.policy import Policy
from buffer_pipeline.rules import HoldRule, OnRefund, TaxOf, percent_text, rule_of_settings, shares_by_rule
from buffer_pipeline.shares import PlannedShare, ShareKind
from buffer_pipeline_tests.support.builders import PAYEE, PAYER

SHOP: Final = "shop"
TREASURY: Final = "treasury"


def rule(**terms: Any) -> HoldRule:
    """Return version 2 of a rule with these terms."""
    return HoldRule(rule_id=9, name="seller", version=2, **terms)


def fee(percent: str | None = None, fixed_minor: int | None = None) -> dict[str, Any]:
    """Return the terms of a fee."""
    return {
        "fee_percent": None if percent is None else Decimal(percent),
        "fee_fixed_minor": fixed_minor,
        "fee_owner": SHOP,
        "fee_on_refund": OnRefund.RETURN,
    }


def tax(percent: str, of: TaxOf) -> dict[str, Any]:
    """Return the terms of a tax."""
    return {"tax_percent": Decimal(percent), "tax_of": of, "tax_owner": TREASURY}


def reserve(percent: str, days: int = 90) -> dict[str, Any]:
    """Return the terms of a reserve."""
    return {"reserve_percent": Decimal(percent), "reserve_days": days}


def parts(terms: HoldRule, amount_minor: int) -> list[tuple[str, str, int]]:
    """Return (kind, owner, amount) of each share."""
    shares = shares_by_rule(terms, amount_minor=amount_minor, payee=PAYEE)
    return [(share.kind, share.owner, share.amount_minor) for share in shares]


# ---- what is taken of what


@pytest.mark.parametrize(
    ("terms", "shares"),
    [
        ({}, [("PAYEE", PAYEE, 10_000)]),
        (fee("12"), [("PAYEE", PAYEE, 8_800), ("FEE", SHOP, 1_200)]),
        (fee(fixed_minor=250), [("PAYEE", PAYEE, 9_750), ("FEE", SHOP, 250)]),
        (fee("12", 250), [("PAYEE", PAYEE, 8_550), ("FEE", SHOP, 1_450)]),
        (tax("2", TaxOf.GROSS), [("PAYEE", PAYEE, 9_800), ("TAX", TREASURY, 200)]),
        (
            {**fee("10"), **tax("2", TaxOf.GROSS)},
            [("PAYEE", PAYEE, 8_800), ("FEE", SHOP, 1_000), ("TAX", TREASURY, 200)],
        ),
        (
            {**fee("10"), **tax("2", TaxOf.NET)},
            [("PAYEE", PAYEE, 8_820), ("FEE", SHOP, 1_000), ("TAX", TREASURY, 180)],
        ),
        (reserve("10"), [("PAYEE", PAYEE, 9_000), ("RESERVE", PAYEE, 1_000)]),
        (
            {**fee("10", 100), **tax("10", TaxOf.NET), **reserve("50")},
            [
                ("PAYEE", PAYEE, 4_005),
                ("FEE", SHOP, 1_100),
                ("TAX", TREASURY, 890),
                ("RESERVE", PAYEE, 4_005),
            ],
        ),
    ],
)
def test_each_part_is_taken_of_what_the_rule_says(
    terms: dict[str, Any], shares: list[tuple[str, str, int]]
) -> None:
    """The fee of the earning, the tax of it or of what the fee leaves, the reserve of what both leave."""
    assert parts(rule(**terms), 10_000) == shares


def test_a_reserve_has_days_and_the_others_have_the_earnings_date() -> None:
    """Only the reserve is held for a time of its own."""
    shares = shares_by_rule(
        rule(**fee("12"), **tax("2", TaxOf.NET), **reserve("10")), amount_minor=10_000, payee=PAYEE
    )

    assert [(share.kind, share.days) for share in shares] == [
        (ShareKind.PAYEE, None), (ShareKind.FEE, None), (ShareKind.TAX, None), (ShareKind.RESERVE, 90)
    ]  # fmt: skip
    assert {share.release_date for share in shares} == {None}


# ---- rounding


@pytest.mark.parametrize(
    ("amount_minor", "shares"),
    [
        # 0.12 of a centavo: left out.
        (1, [("PAYEE", PAYEE, 1)]),
        # 0.48: still less than the payee's remainder of 0.52.
        (4, [("PAYEE", PAYEE, 4)]),
        # 0.6.
        (5, [("PAYEE", PAYEE, 4), ("FEE", SHOP, 1)]),
    ],
)
def test_a_part_that_rounds_to_nothing_is_left_out(
    amount_minor: int, shares: list[tuple[str, str, int]]
) -> None:
    """No share is empty, and nothing is lost."""
    assert parts(rule(**fee("12")), amount_minor) == shares


def test_on_a_tie_the_payee_gets_the_unit() -> None:
    """Half a unit each: the first one in order, the payee."""
    assert parts(rule(**fee("50")), 3) == [("PAYEE", PAYEE, 2), ("FEE", SHOP, 1)]


def test_all_parts_are_rounded_together() -> None:
    """Each alone would be rounded up, to more than there is."""
    terms = rule(**fee("33.3334"), **tax("33.3333", TaxOf.GROSS))

    assert parts(terms, 100) == [("PAYEE", PAYEE, 33), ("FEE", SHOP, 34), ("TAX", TREASURY, 33)]


def test_the_callers_decimal_context_changes_nothing() -> None:
    """Parts are fractions, whatever precision the caller's decimals have."""
    with localcontext() as context:
        context.prec = 2
        found = parts(rule(**fee("12.3457")), 123_456_789)

    assert found == [("PAYEE", PAYEE, 108_215_184), ("FEE", SHOP, 15_241_605)]


percents = st.integers(1, 999_999).map(lambda scaled: Decimal(scaled).scaleb(-4))


@st.composite
def rules(draw: st.DrawFn) -> HoldRule:
    """Draw a rule as `rule add` accepts it."""
    terms: dict[str, Any] = {}
    if draw(st.booleans()):
        terms |= fee(fixed_minor=draw(st.none() | st.integers(1, 500)))
        terms["fee_percent"] = draw(percents)
    if draw(st.booleans()):
        terms |= tax("1", draw(st.sampled_from(TaxOf)))
        terms["tax_percent"] = draw(percents)
    if draw(st.booleans()):
        terms |= reserve("1", draw(st.integers(0, 3650)))
        terms["reserve_percent"] = draw(percents)
    return rule(**terms)


@pytest.mark.parametrize(("currency", "places"), [("JPY", 0), ("PHP", 2), ("KWD", 3)])
@given(terms=rules(), whole=st.integers(0, 10**7), fraction=st.integers(0, 10**9 - 1))
def test_shares_add_up(currency: str, places: int, terms: HoldRule, whole: int, fraction: int) -> None:
    """Nothing is lost or made, no part is negative or empty, and none is a unit away from its exact value."""
    written = f"{whole}.{fraction:09d}"[: len(str(whole)) + 1 + places].rstrip(".")
    assume(written.strip("0."))
    amount_minor = parse_amount(written, currency, places)
    try:
        shares = shares_by_rule(terms, amount_minor=amount_minor, payee=PAYEE)
    except RuleRefused:
        exact = exact_parts(terms, amount_minor)
        assert exact["PAYEE"] < 1
        return

    assert sum(share.amount_minor for share in shares) == amount_minor
    assert all(share.amount_minor > 0 for share in shares)
    assert shares[0].kind is ShareKind.PAYEE
    assert len({share.kind for share in shares}) == len(shares)
    found = {share.kind.value: share.amount_minor for share in shares}
    for kind, exact_minor in exact_parts(terms, amount_minor).items():
        assert abs(found.get(kind, 0) - exact_minor) < 1


def exact_parts(terms: HoldRule, amount_minor: int) -> dict[str, Fraction]:
    """Return what each part would be without rounding, written a second time."""
    of_fee = Fraction(terms.fee_percent or 0) * amount_minor / 100 + (terms.fee_fixed_minor or 0)
    taxed = amount_minor - of_fee if terms.tax_of == "net" else Fraction(amount_minor)
    of_tax = Fraction(terms.tax_percent or 0) * taxed / 100
    left = amount_minor - of_fee - of_tax
    kept = left * Fraction(terms.reserve_percent or 0) / 100
    return {"FEE": of_fee, "TAX": of_tax, "RESERVE": kept, "PAYEE": left - kept}


@given(terms=rules())
def test_the_largest_amount_is_divided_exactly(terms: HoldRule) -> None:
    """Amounts beyond a float's digits add up too."""
    assume(exact_parts(terms, AMOUNT_MINOR_MAX)["PAYEE"] >= 1)

    shares = shares_by_rule(terms, amount_minor=AMOUNT_MINOR_MAX, payee=PAYEE)

    assert sum(share.amount_minor for share in shares) == AMOUNT_MINOR_MAX


# ---- refusals


@pytest.mark.parametrize(
    ("terms", "amount_minor", "why"),
    [
        (fee(fixed_minor=501), 500, "a fee above the amount"),
        (fee("50", 300), 500, "a fee above the amount"),
        (fee(fixed_minor=500), 500, "its fee and tax are not below the amount"),
        ({**fee("60", 300), **tax("30", TaxOf.GROSS)}, 1_000, "its fee and tax are not below the amount"),
        (reserve("60"), 1, "the amount is too small to be divided"),
        (fee("99.9999"), 1, "the amount is too small to be divided"),
    ],
)
def test_nothing_for_the_payee_is_refused(terms: dict[str, Any], amount_minor: int, why: str) -> None:
    """The refusal names the rule, its version and the payee."""
    with pytest.raises(RuleRefused) as refusal:
        shares_by_rule(rule(**terms), amount_minor=amount_minor, payee=PAYEE)

    assert str(refusal.value) == f"rule 'seller' version 2: {why}; nothing is left for payee 'worker-17'"
    assert (refusal.value.rule, refusal.value.owner) == ("seller", PAYEE)


@pytest.mark.parametrize(("name", "terms"), [("fee", fee("12")), ("tax", tax("2", TaxOf.NET))])
def test_the_payer_gets_no_share_of_what_they_pay(name: str, terms: dict[str, Any]) -> None:
    """A hold's payer is not its payee; the owner of the other part may be anybody."""
    owned = rule(**{**fee("12"), **tax("2", TaxOf.NET), **terms, f"{name}_owner": PAYER})

    with pytest.raises(RuleRefused) as refusal:
        shares_by_rule(owned, amount_minor=1_000, payee=PAYEE, payer=PAYER)

    assert str(refusal.value) == f"rule 'seller' version 2: its {name}_owner 'client-3' is the payer"
    assert (refusal.value.rule, refusal.value.owner) == ("seller", PAYER)
    assert len(shares_by_rule(owned, amount_minor=1_000, payee=PAYEE, payer="client-4")) == 3
    assert len(shares_by_rule(owned, amount_minor=1_000, payee=PAYEE)) == 3


# ---- the settings' numbers


def test_a_rule_replaces_the_numbers_that_it_has() -> None:
    """The others stay the settings', as does when a frozen hold is stuck."""
    settings = Policy(
        buffer_days=14, cooldown_hours=48, max_backjobs_per_job=5, stuck_after_hours=9, min_days=2
    )

    assert rule().policy(settings) == settings
    assert rule(days=9).policy(settings) == replace(settings, buffer_days=9)
    assert rule(days=1).policy(settings) == replace(settings, buffer_days=1, min_days=1)
    assert rule(cooldown_hours=0).policy(settings) == replace(settings, cooldown_hours=0)
    assert rule(max_backjobs=0).policy(settings) == replace(settings, max_backjobs_per_job=0)
    assert rule(min_days=0).policy(settings) == replace(settings, min_days=0)


def test_the_settings_are_a_rule_without_a_version() -> None:
    """It has their numbers, takes nothing, and is named without a version."""
    settings = Policy(buffer_days=14, cooldown_hours=48, max_backjobs_per_job=5, min_days=2)
    standard = rule_of_settings(settings)

    assert standard == HoldRule(name="standard", days=14, min_days=2, cooldown_hours=48, max_backjobs=5)
    assert standard.policy(Policy()) == settings
    assert str(standard) == "rule 'standard'"
    assert shares_by_rule(standard, amount_minor=7, payee=PAYEE) == (PlannedShare(ShareKind.PAYEE, PAYEE, 7),)


@pytest.mark.parametrize(
    ("percent", "text"), [("12", "12"), ("12.50", "12.5"), ("0.0001", "0.0001"), ("10", "10"), ("1E+1", "10")]
)
def test_a_percent_is_written_without_zeros_at_its_end(percent: str, text: str) -> None:
    """As a person would write it."""
    assert percent_text(Decimal(percent)) == text


def test_a_refusal_of_a_rule_is_not_one_of_the_input() -> None:
    """The same earning may be accepted by another rule."""
    assert not issubclass(RuleRefused, InvalidInput)
