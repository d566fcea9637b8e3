"""Hold rules for the tests: added, assigned and found as a caller does."""

from typing import Any, Final

from sqlalchemy import Connection, text

from buffer_pipeline.errors import Refused
from buffer_pipeline.rules import (
    HoldRule,
    RuleAssignment,
    WantedRule,
    add_rule,
    assign_rule,
    find_rules_for,
    retire_rule,
    unassign_rule,
)
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYEE

SELLER: Final = "seller"
WHO: Final[dict[str, Any]] = {"by": ADMIN, "reason": "terms of 2026", "now": NOON}
FEE: Final[dict[str, Any]] = {"fee_percent": "12", "fee_owner": "shop"}
TAX: Final[dict[str, Any]] = {"tax_percent": "2", "tax_of": "gross", "tax_owner": "treasury"}
RESERVE: Final[dict[str, Any]] = {"reserve_percent": "10", "reserve_days": 90}


def add(connection: Connection, name: str = SELLER, **terms: Any) -> HoldRule:
    """Add a version of a rule."""
    return add_rule(connection, name=name, **{**WHO, **terms})


def retire(connection: Connection, name: str = SELLER) -> HoldRule:
    """Retire a rule."""
    return retire_rule(connection, name=name, **WHO)


def assign(connection: Connection, owner: str = PAYEE, name: str = SELLER) -> RuleAssignment:
    """Assign a rule to an owner."""
    return assign_rule(connection, owner=owner, name=name, **WHO)


def unassign(connection: Connection, owner: str = PAYEE) -> RuleAssignment:
    """Leave an owner without a rule of their own."""
    return unassign_rule(connection, owner=owner, **WHO)


def found(
    connection: Connection, name: str | None = None, payee: str = PAYEE, currency: str | None = "PHP"
) -> HoldRule | Refused | None:
    """Return the rule of one earning."""
    (rule,) = find_rules_for(connection, [WantedRule(name, payee, currency)])
    return rule


def shares_of(connection: Connection, hold_id: int) -> dict[str, int]:
    """Return the holds of an earning by kind, by the id of its own hold."""
    rows = connection.execute(
        text("SELECT kind, hold_id FROM buffer.hold WHERE hold_id = :hold_id OR earning_id = :hold_id"),
        {"hold_id": hold_id},
    )
    return {row.kind: row.hold_id for row in rows}
