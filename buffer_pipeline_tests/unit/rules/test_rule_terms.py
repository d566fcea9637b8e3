"""Rules are added with their terms, version by version; terms that cannot be are refused by name."""

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from buffer_pipeline.currencies import places_of
from buffer_pipeline.errors import InvalidInput, NotFound
from buffer_pipeline.inputs import ID_MAX
from buffer_pipeline.policy import Policy
from buffer_pipeline.rules import (
    HoldRule,
    OnRefund,
    TaxOf,
    list_rules,
    percent_text,
    read_rules,
    rule_of_settings,
    show_rule,
)
from buffer_pipeline_tests.support.builders import ADMIN, NOON, bring_in, row_counts
from buffer_pipeline_tests.support.raw_sql import refusal_of
from buffer_pipeline_tests.support.rules import FEE, RESERVE, SELLER, TAX, add, retire

# ---- what is stored


def test_a_rule_has_all_of_its_terms(connection: Connection) -> None:
    """Each term is stored exactly, and read again as it was added."""
    added = add(
        connection,
        currency="PHP",
        days=14,
        min_days=14,
        cooldown_hours=48,
        max_backjobs=5,
        fee_percent="12.3456",
        fee_fixed="5.25",
        fee_owner="shop",
        fee_on_refund="keep",
        tax_percent=2,
        tax_of="net",
        tax_owner="treasury",
        reserve_percent=Decimal("10.50"),
        reserve_days=90,
    )

    assert added == HoldRule(
        rule_id=added.rule_id,
        name=SELLER,
        version=1,
        currency="PHP",
        days=14,
        min_days=14,
        cooldown_hours=48,
        max_backjobs=5,
        fee_percent=Decimal("12.3456"),
        fee_fixed_minor=525,
        fee_owner="shop",
        fee_on_refund=OnRefund.KEEP,
        tax_percent=Decimal(2),
        tax_of=TaxOf.NET,
        tax_owner="treasury",
        reserve_percent=Decimal("10.5"),
        reserve_days=90,
        added_by=ADMIN,
        reason="terms of 2026",
        added_at=NOON,
    )
    assert added.rule_id is not None
    assert show_rule(connection, name=SELLER) == added
    assert read_rules(connection, [added.rule_id, 404, added.rule_id]) == {added.rule_id: added}


def test_each_term_is_optional(connection: Connection) -> None:
    """A rule without terms has nothing of its own; a fee alone is returned on a refund."""
    assert add(connection, name="plain") == HoldRule(
        rule_id=show_rule(connection, name="plain").rule_id,
        name="plain",
        version=1,
        added_by=ADMIN,
        reason="terms of 2026",
        added_at=NOON,
    )
    assert add(connection, **FEE).fee_on_refund is OnRefund.RETURN
    assert add(connection, **TAX).fee_on_refund is None
    assert add(connection, **RESERVE).fee_owner is None
    assert add(connection, currency="JPY", fee_fixed=500, fee_owner="shop").fee_fixed_minor == 500


@pytest.mark.parametrize(
    "terms",
    [
        {"days": 3650, "min_days": 3650, "cooldown_hours": 43_800, "max_backjobs": 1000},
        {"days": 0, "min_days": 0, "cooldown_hours": 0, "max_backjobs": 0},
        {"fee_percent": "0.0001", "fee_owner": "shop"},
        {"fee_percent": "99.9999", "fee_owner": "shop"},
        {**TAX, "tax_percent": "99.9999"},
        {"fee_fixed": 500, "fee_owner": "shop", "currency": "JPY", **TAX, "tax_percent": "99.9999"},
        {"fee_percent": "60", "fee_owner": "shop", **TAX, "tax_percent": "39.9999"},
        {"fee_percent": "60", "fee_owner": "shop", **TAX, "tax_percent": "40", "tax_of": "net"},
        {**RESERVE, "reserve_days": 0},
        {**RESERVE, "reserve_percent": "99.9999", "reserve_days": 3650},
        {"min_days": 7},
    ],
)
def test_a_limit_itself_is_accepted(connection: Connection, terms: dict[str, Any]) -> None:
    """By the verb, and by the CHECKs of the table."""
    assert add(connection, **terms).version == 1


def test_the_same_name_adds_the_next_version(connection: Connection) -> None:
    """The versions before stay as they are, and none of their terms is taken over."""
    first = add(connection, days=14, **FEE)
    second = add(connection, fee_percent="10", fee_owner="shop")
    other = add(connection, name="other")

    assert (first.version, second.version, other.version) == (1, 2, 1)
    assert second.days is None
    assert show_rule(connection, name=SELLER) == second
    assert show_rule(connection, name=SELLER, version=1) == first
    assert [rule.version for rule in list_rules(connection)] == [None, 1, 2]
    assert [rule.name for rule in list_rules(connection)] == ["standard", "other", SELLER]


def test_standard_is_the_settings_until_it_is_added(connection: Connection) -> None:
    """And after it is retired."""
    settings = Policy(buffer_days=14)

    before = show_rule(connection, name="standard", policy=settings)
    added = add(connection, name="standard", days=3)
    during = show_rule(connection, name="standard", policy=settings)
    listed = list_rules(connection, policy=settings)
    retired = retire(connection, "standard")

    assert before == rule_of_settings(settings)
    assert show_rule(connection, name="standard", version=1) == retired
    assert (during, listed) == (added, [added])
    assert show_rule(connection, name="standard", policy=settings) == rule_of_settings(settings)
    assert list_rules(connection, policy=settings) == [rule_of_settings(settings)]
    assert list_rules(connection) == [rule_of_settings(Policy())]
    assert show_rule(connection, name="standard") == rule_of_settings(Policy())


def test_a_rule_brings_its_currency_in(connection: Connection) -> None:
    """As a deposit does; one that the books have keeps its places there."""
    bring_in(connection, KWD=1)

    assert add(connection, currency="JPY", fee_fixed="500", fee_owner="shop").fee_fixed_minor == 500
    assert add(connection, currency="KWD", fee_fixed="1.5", fee_owner="shop").fee_fixed_minor == 15
    assert add(connection, currency="PHP").currency == "PHP"
    assert places_of(connection) == {"JPY": 0, "KWD": 1, "PHP": 2}
    with pytest.raises(InvalidInput, match=r"^fee_fixed: amount 1\.55: KWD has 1 places, this has 2$"):
        add(connection, currency="KWD", fee_fixed="1.55", fee_owner="shop")


# ---- what is refused


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"days": -1}, "days -1: must be from 0 to 3650"),
        ({"days": 3651}, "days 3651: must be from 0 to 3650"),
        ({"days": 10**5000}, "days: must be from 0 to 3650"),
        ({"days": 1.5}, "days 1.5: needs an int, got float"),
        ({"days": True}, "days True: needs an int, got bool"),
        ({"min_days": -1}, "min_days -1: must be from 0 to 3650"),
        ({"min_days": 3651, "days": 3650}, "min_days 3651: must be from 0 to 3650"),
        ({"min_days": 15, "days": 14}, "min_days 15: above days, 14"),
        ({"min_days": 1, "days": 0}, "min_days 1: above days, 0"),
        ({"min_days": 8}, "min_days 8: above days, 7"),
        ({"cooldown_hours": -1}, "cooldown_hours -1: must be from 0 to 43800"),
        ({"cooldown_hours": 43_801}, "cooldown_hours 43801: must be from 0 to 43800"),
        ({"max_backjobs": -1}, "max_backjobs -1: must be from 0 to 1000"),
        ({"max_backjobs": 1_001}, "max_backjobs 1001: must be from 0 to 1000"),
        ({**FEE, "fee_percent": "0"}, "fee_percent: 0: must be above zero"),
        ({**FEE, "fee_percent": "-1"}, "fee_percent: -1: must be above zero"),
        ({**FEE, "fee_percent": "100.0001"}, "fee_percent 100.0001: above 100"),
        ({**FEE, "fee_percent": "100"}, "fee_percent 100: leaves nothing; must be below 100"),
        ({**FEE, "fee_percent": "1.00001"}, "fee_percent: 1.00001: a percent has 4 places, this has 5"),
        ({**FEE, "fee_percent": 1.5}, "fee_percent 1.5: needs a Decimal, an int or text, never a float"),
        ({**FEE, "fee_percent": "12 %"}, "fee_percent: '12 %': not a plain decimal number, such as 1250.50"),
        ({"fee_percent": "12"}, "fee_owner: missing; fee_percent or fee_fixed needs it"),
        ({"fee_owner": "shop"}, "fee_owner 'shop': needs a fee_percent or fee_fixed"),
        ({"fee_on_refund": "keep"}, "fee_on_refund keep: needs a fee_percent or fee_fixed"),
        ({**FEE, "fee_on_refund": "KEEP"}, "fee_on_refund 'KEEP': is not return or keep"),
        ({**FEE, "fee_owner": ""}, "fee_owner: must not be empty"),
        ({**FEE, "fee_owner": "x" * 201}, "fee_owner: 201 characters long; at most 200"),
        ({**FEE, "fee_fixed": "5"}, "fee_fixed: needs a currency"),
        (
            {"currency": "PHP", "fee_fixed": "5"},
            "fee_owner: missing; fee_percent or fee_fixed needs it",
        ),
        ({**FEE, "currency": "PHP", "fee_fixed": "0"}, "fee_fixed: amount 0: must be above zero"),
        (
            {**FEE, "currency": "PHP", "fee_fixed": "1.005"},
            "fee_fixed: amount 1.005: PHP has 2 places, this has 3",
        ),
        ({"currency": "QQQ"}, "currency 'QQQ': not an ISO 4217 code, such as PHP or JPY"),
        ({**TAX, "tax_percent": "100"}, "tax_percent 100: leaves nothing; must be below 100"),
        ({**TAX, "tax_owner": None}, "tax_owner: missing; tax_percent needs it"),
        ({**TAX, "tax_of": None}, "tax_of: missing; tax_percent needs it"),
        ({**TAX, "tax_percent": None}, "tax_owner 'treasury': needs a tax_percent"),
        ({"tax_of": "net"}, "tax_of 'net': needs a tax_percent"),
        ({**TAX, "tax_of": "all"}, "tax_of 'all': is not gross or net"),
        ({**TAX, "tax_owner": " x"}, "tax_owner ' x': starts or ends with a space"),
        (
            {**FEE, **TAX, "tax_percent": "88"},
            "tax_percent 88: with fee_percent 12 leaves nothing",
        ),
        ({**RESERVE, "reserve_percent": "100"}, "reserve_percent 100: leaves nothing; must be below 100"),
        ({"reserve_percent": "10"}, "reserve_days: missing; reserve_percent needs it"),
        ({"reserve_days": 90}, "reserve_days '90': needs a reserve_percent"),
        ({**RESERVE, "reserve_days": 3651}, "reserve_days 3651: must be from 0 to 3650"),
        ({**RESERVE, "reserve_days": -1}, "reserve_days -1: must be from 0 to 3650"),
        ({"name": ""}, "name: must not be empty"),
        ({"name": "a\nb"}, "name 'a\\nb': contains a control character"),
        ({"by": ""}, "by: must not be empty"),
        ({"reason": ""}, "reason: must not be empty"),
        ({"now": NOON.replace(tzinfo=None)}, None),
    ],
)
def test_terms_that_cannot_be_are_refused_by_name(
    connection: Connection, terms: dict[str, Any], message: str | None
) -> None:
    """Nothing is written: no currency either."""
    before = row_counts(connection)

    with pytest.raises(InvalidInput) as refusal:
        add(connection, **terms)

    assert message is None or str(refusal.value) == message
    assert row_counts(connection) == before


def test_min_days_are_compared_with_the_settings_where_the_rule_has_no_days(connection: Connection) -> None:
    """Also when these are fewer, or more, than the default."""
    assert add(connection, min_days=8, policy=Policy(buffer_days=8)).min_days == 8
    with pytest.raises(InvalidInput, match=r"^min_days 8: above days, 5$"):
        add(connection, min_days=8, policy=Policy(buffer_days=5))


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("nobody", None, "rule 'nobody': does not exist"),
        ("nobody", 1, "rule 'nobody': no version 1; the rule does not exist"),
        (SELLER, 3, "rule 'seller': no version 3; it has 2"),
        (SELLER, 0, "rule 'seller': no version 0; it has 2"),
        (SELLER, ID_MAX, f"rule 'seller': no version {ID_MAX}; it has 2"),
        (SELLER, ID_MAX + 1, "rule 'seller': no version; it has 2"),
        pytest.param(SELLER, 10**5000, "rule 'seller': no version; it has 2", id="of 5,000 digits"),
        ("standard", 1, "rule 'standard': no version 1; the rule does not exist"),
    ],
)
def test_an_unknown_rule_is_named(
    connection: Connection, name: str, version: int | None, message: str
) -> None:
    """And so is an unknown version, with how many there are."""
    add(connection)
    add(connection)

    with pytest.raises(NotFound) as refusal:
        show_rule(connection, name=name, version=version)

    assert (str(refusal.value), refusal.value.rule) == (message, name)


@pytest.mark.parametrize(
    ("percent", "text"),
    [("12", "12"), ("100", "100"), ("12.50", "12.5"), ("10.0000", "10"), ("0.0125", "0.0125")],
)
def test_a_percent_is_shown_without_zeros_at_its_end(percent: str, text: str) -> None:
    """Zeros before the point stay."""
    assert percent_text(Decimal(percent)) == text


def test_a_name_that_cannot_be_is_refused(connection: Connection) -> None:
    """It could not be found again as it was written."""
    with pytest.raises(InvalidInput, match=r"^name: must not be empty$"):
        show_rule(connection, name="")


# ---- what the tables refuse by themselves

RULE: dict[str, Any] = {
    "name": "'raw'", "version": "1", "added_by": "'admin-1'", "reason": "'terms'", "added_at": "now()"
}  # fmt: skip
OF_FEE: dict[str, str] = {"fee_owner": "'o'", "fee_on_refund": "'keep'"}


@pytest.mark.parametrize(
    ("columns", "constraint"),
    [
        ({"name": "''"}, "hold_rule_name_length"),
        ({"version": "0"}, "hold_rule_version_is_positive"),
        ({"version": "7"}, "hold_rule_version_key"),
        ({"currency": "'QQQ'"}, "hold_rule_currency_fkey"),
        ({"days": "3651"}, "hold_rule_numbers_in_range"),
        ({"reserve_days": "-1", "reserve_percent": "1"}, "hold_rule_numbers_in_range"),
        ({"cooldown_hours": "43801"}, "hold_rule_numbers_in_range"),
        ({"max_backjobs": "1001"}, "hold_rule_numbers_in_range"),
        ({"days": "1", "min_days": "2"}, "hold_rule_min_days_not_above_days"),
        ({**OF_FEE, "fee_percent": "100"}, "hold_rule_percents_in_range"),
        ({"reserve_percent": "0", "reserve_days": "1"}, "hold_rule_percents_in_range"),
        ({"reserve_percent": "0.00001", "reserve_days": "1"}, "hold_rule_percents_have_four_places"),
        ({"fee_percent": "1", "fee_on_refund": "'keep'"}, "hold_rule_fee_is_whole"),
        ({"fee_percent": "1", "fee_owner": "'o'"}, "hold_rule_fee_is_whole"),
        ({"fee_owner": "'o'", "fee_on_refund": "'keep'"}, "hold_rule_fee_is_whole"),
        (
            {"fee_fixed_minor": "1", "fee_owner": "'o'", "fee_on_refund": "'keep'"},
            "hold_rule_fixed_fee_has_currency",
        ),
        (
            {"fee_fixed_minor": "0", "currency": "'PHP'", "fee_owner": "'o'", "fee_on_refund": "'keep'"},
            "hold_rule_fixed_fee_in_range",
        ),
        ({**OF_FEE, "fee_percent": "1", "fee_on_refund": "'x'"}, "hold_rule_fee_on_refund_is_known"),
        ({"tax_percent": "1", "tax_of": "'net'"}, "hold_rule_tax_is_whole"),
        ({"tax_owner": "'o'"}, "hold_rule_tax_is_whole"),
        ({"tax_percent": "1", "tax_of": "'x'", "tax_owner": "'o'"}, "hold_rule_tax_of_is_known"),
        (
            {
                "fee_percent": "60", "fee_owner": "'o'", "fee_on_refund": "'keep'",
                "tax_percent": "40", "tax_of": "'gross'", "tax_owner": "'o'",
            },
            "hold_rule_leaves_something",
        ),
        ({"reserve_percent": "1"}, "hold_rule_reserve_is_whole"),
        ({"fee_percent": "1", "fee_owner": "''", "fee_on_refund": "'keep'"}, "hold_rule_owner_length"),
        ({"added_by": "''"}, "hold_rule_says_who_and_why"),
        ({"retired_by": "'admin-1'"}, "hold_rule_retired_by_only_of_retired"),
        ({"retired_at": "now() - interval '1 s'"}, "hold_rule_retired_after_it_was_added"),
    ],
)  # fmt: skip
def test_a_half_given_rule_cannot_be_stored(
    connection: Connection, columns: dict[str, str], constraint: str
) -> None:
    """Whoever writes it: each refusal of the verb is a constraint too."""
    bring_in(connection, PHP=2)
    row = {**RULE, "version": "7"}
    connection.execute(
        text(f"INSERT INTO buffer.hold_rule ({', '.join(row)}) VALUES ({', '.join(row.values())})")
    )
    row = {**RULE, **columns}

    with pytest.raises(IntegrityError, match=f'"{constraint}"'), connection.begin_nested():
        connection.execute(
            text(f"INSERT INTO buffer.hold_rule ({', '.join(row)}) VALUES ({', '.join(row.values())})")
        )


@pytest.mark.parametrize(
    "change",
    ["retired_at = NULL", "retired_by = 'x'", "retired_at = now() + interval '1 day'", "fee_percent = 1"],
)
def test_a_retirement_is_final(connection: Connection, change: str) -> None:
    """A version is retired once, and nothing else of it changes."""
    add(connection, **FEE)
    retire(connection)

    code, message = refusal_of(connection, f"UPDATE buffer.hold_rule SET {change}")

    assert code == "42501"
    assert "kept as they were written" in message or "permission denied" in message
