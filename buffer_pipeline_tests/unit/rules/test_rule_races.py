"""Changes of one rule at once, and on a snapshot that another change has outdated."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from buffer_pipeline.errors import NotFound, RuleRefused
from buffer_pipeline.rules import HoldRule, RuleAssignment, count_owners, show_rule
from buffer_pipeline_tests.support.builders import PAYEE, all_at_once, one_after_the_other
from buffer_pipeline_tests.support.rules import FEE, SELLER, add, assign, found, retire, unassign

Change = Callable[[Connection], object]


@pytest.mark.parametrize("there_is_one", [False, True])
def test_versions_added_at_once_are_counted_on(engine: Engine, there_is_one: bool) -> None:
    """Each addition gets a version of its own, without a gap."""
    if there_is_one:
        with engine.begin() as connection:
            add(connection)

    added = all_at_once(engine, *[lambda connection: add(connection, currency="PHP")] * 4)

    versions = sorted(rule.version or 0 for rule in added if isinstance(rule, HoldRule))
    assert versions == [first + there_is_one for first in (1, 2, 3, 4)]


def test_a_second_addition_waits_for_the_first(engine: Engine) -> None:
    """And is the version after it."""
    first, second = one_after_the_other(engine, add, lambda connection: add(connection, **FEE))

    assert isinstance(second, HoldRule)
    assert (first.version, second.version) == (1, 2)


def test_a_rule_is_not_assigned_after_it_was_retired(engine: Engine) -> None:
    """An assignment that waits for a retirement is refused."""
    with engine.begin() as connection:
        add(connection)

    _, refusal = one_after_the_other(engine, retire, assign)

    assert isinstance(refusal, RuleRefused)
    assert refusal.state == "RETIRED"
    with engine.connect() as connection:
        assert found(connection) is None


def test_a_rule_is_not_retired_after_it_was_assigned(engine: Engine) -> None:
    """A retirement that waits for an assignment finds its owner."""
    with engine.begin() as connection:
        add(connection)

    _, refusal = one_after_the_other(engine, assign, retire)

    assert isinstance(refusal, RuleRefused)
    assert refusal.state == "ASSIGNED"
    with engine.connect() as connection:
        assert isinstance(found(connection), HoldRule)


def test_a_retirement_after_an_addition_retires_the_added_version(engine: Engine) -> None:
    """No version is left that nobody meant to keep."""
    with engine.begin() as connection:
        add(connection)

    _, retired = one_after_the_other(engine, add, retire)

    assert isinstance(retired, HoldRule)
    assert retired.version == 2


def test_assignments_and_retirements_raced(engine: Engine) -> None:
    """Never is a retired rule an owner's, whatever comes first."""
    for round_ in range(5):
        name = f"rule-{round_}"
        with engine.begin() as connection:
            add(connection, name)
        verbs: list[Change] = [partial(retire, name=name)]
        verbs += [partial(assign, owner=f"worker-{number}", name=name) for number in range(3)]

        outcomes = all_at_once(engine, *verbs)

        assigned = [outcome for outcome in outcomes if isinstance(outcome, RuleAssignment)]
        with engine.connect() as connection:
            is_retired = show_rule(connection, name=name).retired_at is not None
            assert count_owners(connection, [name]).get(name, 0) == len(assigned)
        assert is_retired == (not assigned)


def test_an_owner_gets_two_rules_at_once(engine: Engine) -> None:
    """Both assignments are kept, one after the other, and the later one counts."""
    with engine.begin() as connection:
        add(connection)
        add(connection, "other")

    _, second = one_after_the_other(engine, assign, lambda connection: assign(connection, PAYEE, "other"))

    assert isinstance(second, RuleAssignment)
    with engine.connect() as connection:
        rule = found(connection)
        assert isinstance(rule, HoldRule)
        assert rule.name == "other"


def test_an_owner_is_unassigned_once(engine: Engine) -> None:
    """The second finds nothing."""
    with engine.begin() as connection:
        add(connection)
        assign(connection)

    _, refusal = one_after_the_other(engine, unassign, unassign)

    assert isinstance(refusal, NotFound)


CHANGES: Final[dict[str, Change]] = {
    "add": add,
    "retire": retire,
    "assign": assign,
    "assign another": lambda connection: assign(connection, PAYEE, "other"),
    "unassign": unassign,
}
CONFLICTS: Final = [
    ("add", "add", False),
    ("add", "retire", False),
    ("retire", "add", False),
    ("retire", "retire", False),
    ("retire", "assign", False),
    ("assign", "retire", False),
    ("assign", "assign another", False),
    ("assign", "unassign", True),
    ("assign another", "unassign", True),
    ("unassign", "assign another", True),
    ("unassign", "unassign", True),
]
"""The first change, the second on a snapshot from before it, and whether the owner has a rule at first."""


def on_an_outdated_snapshot(engine: Engine, isolation: Any, first: Change, second: Change) -> str | None:
    """Take a snapshot, let `first` commit, and return the SQLSTATE with which `second` fails on it."""
    try:
        with engine.connect().execution_options(isolation_level=isolation) as connection, connection.begin():
            connection.execute(text("SELECT count(*) FROM buffer.wallet"))
            with engine.begin() as other:
                first(other)
            second(connection)
    except OperationalError as error:
        return getattr(error.orig, "sqlstate", None)
    return None


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize(("first", "second", "is_assigned"), CONFLICTS)
def test_a_change_on_an_outdated_snapshot_conflicts(
    engine: Engine, isolation: Any, first: str, second: str, is_assigned: bool
) -> None:
    """It ends with a serialization failure rather than acting on what was there before."""
    with engine.begin() as connection:
        add(connection)
        add(connection, "other")
        if is_assigned:
            assign(connection)

    assert on_an_outdated_snapshot(engine, isolation, CHANGES[first], CHANGES[second]) == "40001"


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_the_first_version_on_an_outdated_snapshot_conflicts(engine: Engine, isolation: Any) -> None:
    """Where there is no row yet that both could write."""
    assert on_an_outdated_snapshot(engine, isolation, add, add) == "40001"
    with engine.connect() as connection:
        assert show_rule(connection, name=SELLER).version == 1
