"""The hold rule of an earning: which one applies at intake, its shares and days, and replays."""

from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection, event, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.errors import NotFound, ReferenceConflict, RuleRefused
from buffer_pipeline.intake import AddedHold, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.reports.holds import show_hold
from buffer_pipeline.rules import STANDARD
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline_tests.support import rules
from buffer_pipeline_tests.support.builders import DAY_7, NOON, PAYEE, PAYER, row_counts
from buffer_pipeline_tests.support.earnings import WAYS, Add, earning
from buffer_pipeline_tests.support.rules import FEE, RESERVE, SELLER, TAX

AMOUNT: Final = {"amount": "1000.00"}
ALL_KINDS: Final = [
    (ShareKind.PAYEE, PAYEE, 77_400, DAY_7),
    (ShareKind.FEE, "shop", 12_000, DAY_7),
    (ShareKind.TAX, "treasury", 2_000, DAY_7),
    (ShareKind.RESERVE, PAYEE, 8_600, NOON + timedelta(days=90)),
]


def kinds_of(added: AddedHold) -> list[tuple[ShareKind, str, int, Any]]:
    """Return kind, owner, minor units and release date of each share."""
    return [(share.kind, share.owner, share.amount_minor, share.release_date) for share in added.shares]


def rule_of(connection: Connection, added: AddedHold) -> tuple[str | None, int | None]:
    """Return name and version of a hold's rule."""
    shown = show_hold(connection, hold_id=added.hold_id)
    return shown["rule"], shown["rule_version"]


@WAYS
def test_the_named_rule_divides_the_earning(connection: Connection, add: Add) -> None:
    """Its fee, tax and reserve become shares, and each share records the version."""
    rules.add(connection, **FEE, **TAX, **RESERVE)

    added = add(connection, rule=SELLER, **AMOUNT)

    versions = connection.execute(text("SELECT DISTINCT rule_id FROM buffer.hold")).all()
    assert kinds_of(added) == ALL_KINDS
    assert rule_of(connection, added) == (SELLER, 1)
    assert len(versions) == 1
    assert reconcile(connection) == []


@WAYS
def test_the_payees_own_rule_applies_if_none_is_named(connection: Connection, add: Add) -> None:
    """The latest assignment, with the newest version of its rule."""
    rules.add(connection, days=3)
    rules.assign(connection)
    rules.add(connection, days=2, **FEE)

    added = add(connection, **AMOUNT)

    assert [share.kind for share in added.shares] == [ShareKind.PAYEE, ShareKind.FEE]
    assert added.release_date == NOON + timedelta(days=2)
    assert rule_of(connection, added) == (SELLER, 2)


@WAYS
def test_the_rule_standard_applies_to_everybody_else(connection: Connection, add: Add) -> None:
    """It replaces the settings' defaults until it is retired."""
    rules.add(connection, STANDARD, days=3)
    before = add(connection, reference="before")
    rules.retire(connection, STANDARD)

    after = add(connection, reference="after")

    assert before.release_date == NOON + timedelta(days=3)
    assert rule_of(connection, before) == (STANDARD, 1)
    assert after.release_date == DAY_7
    assert rule_of(connection, after) == (STANDARD, None)


@WAYS
def test_without_any_rule_an_earning_has_the_settings_defaults(connection: Connection, add: Add) -> None:
    """A rule of another owner changes nothing."""
    rules.add(connection, days=3)
    rules.assign(connection, owner="worker-99")

    added = add(connection)

    assert (added.release_date, added.shares) == (DAY_7, ())
    assert rule_of(connection, added) == (STANDARD, None)


@WAYS
def test_an_unassigned_owner_has_the_defaults_again(connection: Connection, add: Add) -> None:
    """Earlier assignments do not count."""
    rules.add(connection, days=3)
    rules.assign(connection)
    rules.unassign(connection)

    added = add(connection)

    assert added.release_date == DAY_7


@WAYS
def test_shares_of_the_caller_replace_those_of_the_rule(connection: Connection, add: Add) -> None:
    """The rule's other terms still apply."""
    rules.add(connection, days=3, **FEE)
    given = [Share(kind=ShareKind.PAYEE), Share(kind=ShareKind.FEE, owner="agency", percent=50)]

    added = add(connection, rule=SELLER, shares=given, **AMOUNT)

    assert [(share.owner, share.amount_minor) for share in added.shares] == [
        (PAYEE, 50_000),
        ("agency", 50_000),
    ]
    assert added.release_date == NOON + timedelta(days=3)
    assert rule_of(connection, added) == (SELLER, 1)


@WAYS
def test_one_share_of_the_payee_leaves_the_earning_whole(connection: Connection, add: Add) -> None:
    """This waives the rule's fee."""
    rules.add(connection, **FEE)

    added = add(connection, rule=SELLER, shares=[Share(kind=ShareKind.PAYEE)])

    assert added.shares == ()
    assert rule_of(connection, added) == (SELLER, 1)


@WAYS
def test_a_given_release_date_replaces_the_rules_days(connection: Connection, add: Add) -> None:
    """A reserve keeps the rule's days."""
    rules.add(connection, days=3, **RESERVE)
    day_5 = NOON + timedelta(days=5)

    added = add(connection, rule=SELLER, release_date=day_5)

    assert [share.release_date for share in added.shares] == [day_5, NOON + timedelta(days=90)]


@WAYS
def test_a_replay_returns_the_first_hold_whatever_the_rule_is_now(connection: Connection, add: Add) -> None:
    """A new version, another assignment or a retirement changes no existing hold."""
    rules.add(connection, **FEE)
    first = add(connection, rule=SELLER, **AMOUNT)
    rules.add(connection, days=1)
    rules.retire(connection)

    again = add(connection, rule=SELLER, **AMOUNT)
    unnamed = add(connection, **AMOUNT)

    assert (again.hold_id, again.replayed, again.shares) == (first.hold_id, True, first.shares)
    assert (unnamed.hold_id, unnamed.replayed) == (first.hold_id, True)


@WAYS
@pytest.mark.parametrize(("first", "second"), [(SELLER, STANDARD), (None, SELLER)])
def test_a_replay_by_another_rule_is_refused(
    connection: Connection, add: Add, first: str | None, second: str
) -> None:
    """The refusal names both rules. A hold of the defaults has rule `standard`."""
    rules.add(connection, days=3)
    held = add(connection, rule=first)

    with pytest.raises(ReferenceConflict) as caught:
        add(connection, rule=second)

    assert str(caught.value) == (
        f"reference 'late': already used for hold {held.hold_id} with rule {first or STANDARD!r},"
        f" not rule {second!r}"
    )


@WAYS
def test_the_defaults_can_be_named(connection: Connection, add: Add) -> None:
    """`standard` selects them although the payee has a rule."""
    rules.add(connection, days=3)
    rules.assign(connection)

    added = add(connection, rule=STANDARD)

    assert added.release_date == DAY_7
    assert rule_of(connection, added) == (STANDARD, None)


@WAYS
@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ("nobody", NotFound, "rule 'nobody': does not exist"),
        ("retired", RuleRefused, "rule 'retired': retired since 2026-03-02T12:00:00+00:00"),
        ("yen", RuleRefused, "rule 'yen' version 1: is for JPY, not for PHP"),
        (
            "dear",
            RuleRefused,
            f"rule 'dear' version 1: a fee above the amount; nothing is left for payee {PAYEE!r}",
        ),
        ("own", RuleRefused, f"rule 'own' version 1: its fee_owner {PAYER!r} is the payer"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused(
    connection: Connection, add: Add, named: str, error: type[Exception], message: str
) -> None:
    """Nothing is written, and no other rule replaces it."""
    rules.add(connection, "retired")
    rules.retire(connection, "retired")
    rules.add(connection, "yen", currency="JPY")
    rules.add(connection, "dear", currency="PHP", fee_fixed="10.01", fee_owner="shop")
    rules.add(connection, "own", fee_percent=1, fee_owner=PAYER)
    before = row_counts(connection)

    with pytest.raises(error) as caught:
        add(connection, rule=named)

    assert str(caught.value) == message
    assert row_counts(connection) == before


def test_a_refused_earning_keeps_no_other_from_being_added(connection: Connection) -> None:
    """Each of many earnings has its own payee's rule."""
    rules.add(connection, **FEE)
    rules.assign(connection, owner="worker-18")

    outcomes = add_many_pending_earnings(
        connection,
        [
            earning(reference="one"),
            earning(reference="two", rule="nobody"),
            earning(reference="three", payee="worker-18"),
            earning(reference="one"),
        ],
        now=NOON,
    )

    one, two, three, again = outcomes
    assert isinstance(one, AddedHold)
    assert isinstance(three, AddedHold)
    assert isinstance(again, AddedHold)
    assert (one.shares, again.replayed, again.hold_id) == ((), True, one.hold_id)
    assert isinstance(two, NotFound)
    assert [share.owner for share in three.shares] == ["worker-18", "shop"]


@pytest.mark.parametrize(("named", "expected"), [(SELLER, 2), (None, 3)])
def test_an_earning_with_a_rule_takes_few_statements(
    connection: Connection, named: str | None, expected: int
) -> None:
    """A named rule is looked up first, the payee's only if there is one."""
    rules.add(connection, days=3)
    add_pending_earnings(connection, **vars(earning(reference="first")), now=NOON)
    rules.assign(connection)
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        statements.append(statement)

    event.listen(connection, "before_cursor_execute", note)
    add_pending_earnings(connection, **vars(earning(rule=named)), now=NOON)

    assert len(statements) == expected
