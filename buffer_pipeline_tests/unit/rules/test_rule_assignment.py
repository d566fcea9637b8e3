"""Whose a rule is, which one applies to an earning, and when one may be retired."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from buffer_pipeline.errors import InvalidInput, NotFound, RuleRefused
from buffer_pipeline.rules import (
    STANDARD,
    HoldRule,
    RuleAssignment,
    WantedRule,
    assign_rule,
    count_owners,
    find_rules_for,
    list_rules,
    read_rules,
    retire_rule,
    show_rule,
    unassign_rule,
)
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYEE, row_counts
from buffer_pipeline_tests.support.rules import FEE, SELLER, WHO, add, assign, found, retire, unassign


def history(connection: Connection) -> list[tuple[Any, ...]]:
    """Return the owner, number and rule of each assignment."""
    rows = connection.execute(
        text("SELECT owner, number, name FROM buffer.rule_assignment ORDER BY owner, number")
    )
    return [tuple(row) for row in rows]


# ---- which one applies


def test_the_named_rule_comes_before_the_payees_and_that_before_standard(connection: Connection) -> None:
    """And without any of them the settings' defaults apply: None."""
    assert found(connection) is None
    standard = add(connection, name="standard", days=3)
    assert found(connection) == standard
    seller, other = add(connection, **FEE), add(connection, name="other")
    assert found(connection) == standard
    assign(connection)
    assert found(connection) == seller
    assert found(connection, payee="worker-18") == standard
    assert found(connection, "other") == other
    assert found(connection, "standard") == standard
    unassign(connection)
    assert found(connection) == standard
    retire(connection, "standard")
    assert found(connection) is None
    assert found(connection, "standard") is None


def test_the_newest_version_applies_from_now_on(connection: Connection) -> None:
    """Also to the owners who have the rule already, and after the older ones were retired."""
    add(connection)
    assign(connection)
    second = add(connection, days=3)

    assert found(connection) == second
    unassign(connection)
    retire(connection)
    third = add(connection, days=4)
    assert found(connection, SELLER) == third
    assert show_rule(connection, name=SELLER, version=2).retired_at == NOON


def test_many_are_found_by_one_statement(connection: Connection) -> None:
    """Each at its place, refusals too, and the same ones as one by one."""
    add(connection, **FEE)
    add(connection, name="pesos", currency="PHP")
    add(connection, name="gone")
    retire(connection, "gone")
    assign(connection, PAYEE)
    assign(connection, 'worker, "18" \\ {\'', "pesos")
    wanted = [
        WantedRule(name, payee, currency)
        for name in (None, SELLER, "pesos", "gone", "nobody", "standard", "a\nb", "", "{x,y}")
        for payee in (PAYEE, 'worker, "18" \\ {\'', "worker-19", "")
        for currency in ("PHP", "JPY", None)
    ]

    rules = find_rules_for(connection, wanted)

    assert [repr(rule) for rule in rules] == [
        repr(rule) for want in wanted for rule in find_rules_for(connection, [want])
    ]
    assert {type(rule) for rule in rules} == {HoldRule, type(None), RuleRefused, NotFound, InvalidInput}
    assert find_rules_for(connection, []) == []


@pytest.mark.parametrize(
    ("name", "payee", "currency", "kind", "message"),
    [
        ("nobody", PAYEE, "PHP", NotFound, "rule 'nobody': does not exist"),
        ("gone", PAYEE, "PHP", RuleRefused, "rule 'gone': retired since 2026-03-02T12:00:00+00:00"),
        ("pesos", PAYEE, "JPY", RuleRefused, "rule 'pesos' version 1: is for PHP, not for JPY"),
        (
            None,
            PAYEE,
            "JPY",
            RuleRefused,
            "rule 'pesos' version 1, which 'worker-17' has: is for PHP, not for JPY",
        ),
        ("", PAYEE, "PHP", InvalidInput, "rule: must not be empty"),
        (None, "", "PHP", InvalidInput, "payee: must not be empty"),
    ],
)
def test_a_rule_that_cannot_be_used_is_a_refusal(
    connection: Connection, name: str | None, payee: str, currency: str, kind: type, message: str
) -> None:
    """It names the rule, and the payee if it is theirs."""
    add(connection, name="gone")
    retire(connection, "gone")
    add(connection, name="pesos", currency="PHP")
    assign(connection, PAYEE, "pesos")

    refusal = found(connection, name, payee, currency)

    assert type(refusal) is kind
    assert isinstance(refusal, Exception)
    assert str(refusal) == message
    if not isinstance(refusal, InvalidInput):
        assert refusal.rule == (name or "pesos")
    if name == "gone":
        assert refusal.state == "RETIRED"


def test_a_retired_rule_that_an_owner_has_is_refused(connection: Connection) -> None:
    """Which only raw SQL brings about. Nothing is charged by another rule in silence."""
    add(connection)
    assign(connection)
    connection.execute(text("UPDATE buffer.hold_rule SET retired_at = now()"))

    refusal = found(connection)

    assert isinstance(refusal, RuleRefused)
    assert str(refusal).startswith("rule 'seller', which 'worker-17' has: retired since ")


def test_terms_of_holds_are_read_by_id(connection: Connection) -> None:
    """Whatever versions there are, retired ones too."""
    rules = [add(connection), add(connection, **FEE), retire(connection)]

    terms = read_rules(connection, (rule.rule_id for rule in rules if rule.rule_id))

    assert terms == {rule.rule_id: rule for rule in (rules[0], rules[2])}
    assert read_rules(connection, []) == {}


# ---- assign and unassign


def test_assignments_are_kept(connection: Connection) -> None:
    """The newest one of an owner counts, and each says who and why, if that was said."""
    add(connection)
    add(connection, name="other")

    first = assign(connection)
    anonymous = assign_rule(connection, owner=PAYEE, name="other", now=NOON + timedelta(hours=1))
    assign(connection, "worker-18")
    assert count_owners(connection, [SELLER, "other", "nobody"]) == {SELLER: 1, "other": 1}
    ended = unassign_rule(connection, owner=PAYEE, by=ADMIN, reason="ended", now=NOON)
    again = assign(connection)

    assert first == again
    assert first == RuleAssignment(
        owner=PAYEE, rule=SELLER, assigned_by=ADMIN, reason="terms of 2026", assigned_at=NOON
    )
    assert (anonymous.rule, anonymous.assigned_by, anonymous.reason) == ("other", None, None)
    assert anonymous.assigned_at == NOON + timedelta(hours=1)
    assert (ended.rule, ended.assigned_by, ended.reason) == (None, ADMIN, "ended")
    assert history(connection) == [
        (PAYEE, 1, SELLER),
        (PAYEE, 2, "other"),
        (PAYEE, 3, None),
        (PAYEE, 4, SELLER),
        ("worker-18", 1, SELLER),
    ]
    assert count_owners(connection, [SELLER, "other"]) == {SELLER: 2}


@pytest.mark.parametrize(
    ("owner", "name", "kind", "message"),
    [
        (PAYEE, "nobody", NotFound, "rule 'nobody': does not exist"),
        (
            PAYEE,
            "gone",
            RuleRefused,
            "rule 'gone': retired since 2026-03-02T12:00:00+00:00; a new version puts it back into use",
        ),
        (
            PAYEE,
            "standard",
            RuleRefused,
            "rule 'standard': every owner without a rule of their own has it; unassign the owner's rule",
        ),
        ("", SELLER, InvalidInput, "owner: must not be empty"),
        (PAYEE, "", InvalidInput, "name: must not be empty"),
    ],
)
def test_an_assignment_that_cannot_be_is_refused(
    connection: Connection, owner: str, name: str, kind: type[Exception], message: str
) -> None:
    """Nothing is written."""
    add(connection)
    add(connection, name="gone")
    retire(connection, "gone")
    before = row_counts(connection)

    with pytest.raises(kind) as refusal:
        assign(connection, owner, name)

    assert str(refusal.value) == message
    if not isinstance(refusal.value, InvalidInput):
        assert getattr(refusal.value, "rule") == name  # noqa: B009 - mypy knows an Exception only
    if name == "standard":
        assert getattr(refusal.value, "owner") == owner  # noqa: B009 - the same
    assert row_counts(connection) == before


def test_nobody_is_unassigned_without_a_name(connection: Connection) -> None:
    """The refusal names the argument."""
    with pytest.raises(InvalidInput, match=r"^owner: must not be empty$"):
        unassign(connection, "")


def test_nothing_is_unassigned_from_an_owner_without_a_rule(connection: Connection) -> None:
    """Neither at first nor a second time."""
    add(connection)
    for step in range(2):
        with pytest.raises(NotFound) as refusal:
            unassign(connection)
        assert str(refusal.value) == f"owner {PAYEE!r}: has no rule of their own"
        assert refusal.value.owner == PAYEE
        if not step:
            assign(connection)
            unassign(connection)


# ---- retire


def test_a_rule_that_owners_have_is_not_retired(connection: Connection) -> None:
    """The refusal says how many; after the last one has another rule, it is."""
    add(connection)
    add(connection, name="other")
    for number in range(3):
        assign(connection, f"worker-{number}")
    unassign(connection, "worker-2")

    for owners, free in (("2 owners", "worker-0"), ("1 owner", "worker-1")):
        with pytest.raises(RuleRefused) as refusal:
            retire(connection)
        assert str(refusal.value) == (
            f"rule 'seller': assigned to {owners}; assign another rule to them, or unassign it, first"
        )
        assert (refusal.value.rule, refusal.value.state) == (SELLER, "ASSIGNED")
        assign(connection, free, "other")
    retired = retire(connection)

    assert (retired.version, retired.retired_by, retired.retirement_reason, retired.retired_at) == (
        1, ADMIN, "terms of 2026", NOON
    )  # fmt: skip


def test_a_retirement_may_say_neither_who_nor_why(connection: Connection) -> None:
    """Both are optional."""
    add(connection)

    retired = retire_rule(connection, name=SELLER, now=NOON)

    assert (retired.retired_by, retired.retirement_reason, retired.retired_at) == (None, None, NOON)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("nobody", NotFound, "rule 'nobody': does not exist"),
        ("standard", NotFound, "rule 'standard': does not exist; the settings' defaults apply"),
        (
            "gone",
            RuleRefused,
            "rule 'gone': retired since 2026-03-02T12:00:00+00:00; a new version puts it back into use",
        ),
        ("", InvalidInput, "name: must not be empty"),
    ],
)
def test_a_retirement_that_cannot_be_is_refused(
    connection: Connection, name: str, kind: type[Exception], message: str
) -> None:
    """Nothing is written."""
    add(connection, name="gone")
    retire(connection, "gone")

    with pytest.raises(kind) as refusal:
        retire(connection, name)

    assert str(refusal.value) == message


def test_clocks_may_differ_a_little(connection: Connection) -> None:
    """Up to a minute before the version was added counts as then; an earlier time is refused."""
    add(connection)
    with pytest.raises(InvalidInput, match=r"lies before version 1 of rule 'seller' was added at "):
        retire_rule(connection, name=SELLER, now=NOON - timedelta(seconds=61))

    assert retire_rule(connection, name=SELLER, now=NOON - timedelta(seconds=60)).retired_at == NOON


@pytest.mark.parametrize("verb", [assign_rule, unassign_rule, retire_rule])
@pytest.mark.parametrize("wrong", [{"by": ""}, {"reason": ""}, {"now": NOON.replace(tzinfo=None)}])
def test_who_why_and_when_are_checked(connection: Connection, verb: Any, wrong: dict[str, Any]) -> None:
    """An empty text is not the same as none."""
    add(connection)
    assign(connection)
    named = {"owner": PAYEE} if verb is unassign_rule else {"name": SELLER}
    if verb is assign_rule:
        named["owner"] = PAYEE

    with pytest.raises(InvalidInput, match=f"^{next(iter(wrong))}"):
        verb(connection, **named, **{**WHO, **wrong})


def test_raw_sql_assigns_no_rule_that_does_not_exist(connection: Connection) -> None:
    """A foreign key says so."""
    with pytest.raises(IntegrityError, match="rule_assignment_rule_fkey"):
        connection.execute(
            text(
                "INSERT INTO buffer.rule_assignment (owner, number, name, assigned_at)"
                " VALUES ('worker-17', 1, 'nobody', now())"
            )
        )


def test_each_currency_has_a_version_of_its_own(connection: Connection) -> None:
    """The version for the currency counts, else the one without; with neither the rule is refused."""
    add(connection, currency="USD", fee_fixed="1.00", fee_owner="shop")
    add(connection, currency="EUR", fee_fixed="0.90", fee_owner="shop")
    dollars, euros, pesos = (found(connection, SELLER, currency=name) for name in ("USD", "EUR", "PHP"))
    add(connection, fee_percent=5, fee_owner="shop")
    newest = [found(connection, SELLER, currency=name) for name in ("USD", "PHP")]

    versions = [rule.version for rule in (dollars, euros, *newest) if isinstance(rule, HoldRule)]
    assert versions == [1, 2, 1, 3]
    assert str(pesos) == "rule 'seller' version 2: is for EUR, not for PHP"
    assert [(rule.version, rule.currency) for rule in list_rules(connection)[1:]] == [
        (3, None),
        (2, "EUR"),
        (1, "USD"),
    ]


def test_a_retirement_takes_all_versions_out_of_use(connection: Connection) -> None:
    """A new version brings only its own currency back."""
    add(connection, currency="USD", days=1)
    add(connection, currency="EUR", days=2)
    retire(connection)
    retired = [found(connection, SELLER, currency=name) for name in ("USD", "EUR")]
    add(connection, currency="USD", days=3)

    dollars, euros = (found(connection, SELLER, currency=name) for name in ("USD", "EUR"))

    assert [str(one) for one in retired] == ["rule 'seller': retired since 2026-03-02T12:00:00+00:00"] * 2
    assert isinstance(dollars, HoldRule)
    assert dollars.version == 3
    assert str(euros) == "rule 'seller' version 3: is for USD, not for EUR"
    assert [(rule.version, rule.retired_at) for rule in list_rules(connection)[1:]] == [(3, None)]


def test_standard_with_a_currency_leaves_the_others_to_the_settings(connection: Connection) -> None:
    """And the list has both."""
    add(connection, STANDARD, currency="USD", days=1)

    dollars, pesos = (found(connection, currency=name) for name in ("USD", "PHP"))

    assert isinstance(dollars, HoldRule)
    assert (dollars.name, pesos) == (STANDARD, None)
    assert [(rule.name, rule.version) for rule in list_rules(connection)] == [(STANDARD, None), (STANDARD, 1)]
