"""The work with hold rules, of which each role does a part."""

import pytest
from sqlalchemy import Connection, Engine

from buffer_pipeline.errors import RuleRefused
from buffer_pipeline.rules import (
    WantedRule,
    add_rule,
    assign_rule,
    count_owners,
    find_rules_for,
    list_rules,
    read_rules,
    retire_rule,
    show_rule,
    unassign_rule,
)
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYEE


def rules_are_kept(platform: Engine) -> None:
    """Add versions of a rule, assign and unassign it, find and list rules, and retire it."""
    with platform.begin() as connection:
        for percent in ("12", "10"):
            rule = add_rule(
                connection,
                name="seller",
                currency="PHP",
                fee_percent=percent,
                fee_fixed="5",
                fee_owner="shop",
                by=ADMIN,
                reason="terms",
                now=NOON,
            )
        assign_rule(connection, owner=PAYEE, name="seller", now=NOON)
        (found,) = find_rules_for(connection, [WantedRule(None, PAYEE, "PHP")])
        assert found == rule
        with pytest.raises(RuleRefused), connection.begin_nested():
            retire_rule(connection, name="seller", now=NOON)
        unassign_rule(connection, owner=PAYEE, now=NOON)
        retire_rule(connection, name="seller", now=NOON)
        rules_are_read(connection)


def rules_are_read(connection: Connection) -> None:
    """List rules, show one, and read the terms of holds."""
    assert [rule.name for rule in list_rules(connection)] == ["standard", "seller"]
    rule = show_rule(connection, name="seller", version=1)
    assert rule.rule_id is not None
    assert read_rules(connection, [rule.rule_id]) == {rule.rule_id: rule}
    assert count_owners(connection, ["seller"]) == {}
    assert find_rules_for(connection, [WantedRule(None, PAYEE, "PHP")]) == [None]
