"""Hold rules, and the owners that they are assigned to."""

from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import Query
from pydantic import ConfigDict

from buffer_pipeline.api.bodies import Amount, Body, By, Filters, Id, Percent, Reason, Time
from buffer_pipeline.api.books import Call
from buffer_pipeline.api.endpoint import read, write
from buffer_pipeline.api.endpoint import router as new_router
from buffer_pipeline.api.routes.models import Rules, TriedShares
from buffer_pipeline.currencies import coming_in, places_of
from buffer_pipeline.errors import Refused
from buffer_pipeline.money import parse_amount
from buffer_pipeline.rules import HoldRule, RuleAssignment, add_rule, assign_rule, retire_rule, unassign_rule
from buffer_pipeline.rules import list_rules as list_rules_read
from buffer_pipeline.rules import show_rule as show_rule_read
from buffer_pipeline.rules.find import WantedRule, count_owners, find_rules_for
from buffer_pipeline.rules.rule import rule_of_settings, shares_by_rule
from buffer_pipeline.shares import misdated, share_date

router: Final = new_router("rules")


class VersionFilter(Filters):
    """Which version; without one, the newest."""

    version: Id | None = None


class TryFilters(Filters):
    """What the rule is tried with."""

    amount: Amount
    currency: str
    payee: str = "payee"
    held_at: Time | None = None


class RuleBody(Body):
    """The terms of a rule, or of its next version."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "marketplace",
                    "by": "admin-1",
                    "reason": "terms of 2027",
                    "days": 5,
                    "fee_percent": "12",
                    "fee_owner": "platform",
                }
            ]
        }
    )

    name: str
    by: By
    reason: Reason
    currency: str | None = None
    days: int | None = None
    min_days: int | None = None
    cooldown_hours: int | None = None
    max_backjobs: int | None = None
    fee_percent: Percent | None = None
    fee_fixed: Amount | None = None
    fee_owner: str | None = None
    fee_on_refund: Literal["return", "keep"] | None = None
    tax_percent: Percent | None = None
    tax_of: Literal["gross", "net"] | None = None
    tax_owner: str | None = None
    reserve_percent: Percent | None = None
    reserve_days: int | None = None
    recovery_percent: Percent | None = None


class RetireBody(Body):
    """Who retires a rule, and why."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "marketplace", "by": "admin-1", "reason": "replaced"}]}
    )

    name: str
    by: By
    reason: Reason


class AssignBody(Body):
    """Whose next earnings have which rule."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"owner": "worker-17", "name": "marketplace", "by": "admin-1", "reason": "new terms"}
            ]
        }
    )

    owner: str
    name: str
    by: By
    reason: Reason


class UnassignBody(Body):
    """Whose next earnings have the rule `standard`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"owner": "worker-17", "by": "admin-1", "reason": "terms ended"}]}
    )

    owner: str
    by: By
    reason: Reason


@read(router, "/rules", answer=Rules)
def list_rules(call: Call) -> dict[str, Any]:
    """List the newest version of each rule, with the number of owners that it is assigned to."""
    rules = list_rules_read(call.connection, policy=call.settings.policy)
    owners = count_owners(call.connection, [rule.name for rule in rules])
    return {"rules": [{"rule": rule, "owners": owners.get(rule.name, 0)} for rule in rules]}


@read(router, "/rules/{name}", answer=HoldRule)
def show_rule(call: Call, name: str, filters: Annotated[VersionFilter, Query()]) -> HoldRule:
    """Show a rule."""
    return show_rule_read(call.connection, name=name, **filters.facts(), policy=call.settings.policy)


@read(router, "/rules/{name}/try", answer=TriedShares)
def try_rule(call: Call, name: str, filters: Annotated[TryFilters, Query()]) -> dict[str, Any]:
    """Show the shares that a rule makes of an amount, and their release dates. Nothing is written."""
    places = coming_in(places_of(call.connection), filters.currency)
    amount_minor = parse_amount(filters.amount, filters.currency, places)
    (found,) = find_rules_for(call.connection, [WantedRule(name, filters.payee, filters.currency)])
    if isinstance(found, Refused):
        raise found
    rule = found or rule_of_settings(call.settings.policy)
    began = filters.held_at or call.now
    release_date = began + timedelta(days=rule.policy(call.settings.policy).buffer_days)
    shares = []
    for share in shares_by_rule(rule, amount_minor=amount_minor, payee=filters.payee):
        date = share_date(share, held_at=began, release_date=release_date)
        if refusal := misdated(share, held_at=began, release_date=date):
            raise refusal
        shares.append(
            {
                "kind": share.kind,
                "owner": share.owner,
                "amount_minor": share.amount_minor,
                "currency": filters.currency,
                "places": places,
                "release_date": date,
            }
        )
    return {"rule": rule.name, "version": rule.version, "shares": shares}


@write(router, "/rules", answer=HoldRule)
def make_rule(call: Call, body: RuleBody) -> HoldRule:
    """Add a rule, or the next version of a rule."""
    return add_rule(call.connection, **body.facts(), now=call.now, policy=call.settings.policy)


@write(router, "/rules/retire", answer=HoldRule)
def retire(call: Call, body: RetireBody) -> HoldRule:
    """Retire a rule: no new hold gets it."""
    return retire_rule(call.connection, **body.facts(), now=call.now)


@write(router, "/rules/assign", answer=RuleAssignment)
def assign(call: Call, body: AssignBody) -> RuleAssignment:
    """Record which rule an owner's next earnings have."""
    return assign_rule(call.connection, **body.facts(), now=call.now)


@write(router, "/rules/unassign", answer=RuleAssignment)
def unassign(call: Call, body: UnassignBody) -> RuleAssignment:
    """Record that an owner's next earnings have the rule `standard`."""
    return unassign_rule(call.connection, **body.facts(), now=call.now)
