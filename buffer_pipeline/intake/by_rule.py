"""Earnings by the terms of the rules that apply to them."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from buffer_pipeline.database import AnyConnection
from buffer_pipeline.errors import Refused, RuleRefused
from buffer_pipeline.intake.earning import DatedEarning, with_terms
from buffer_pipeline.rules import HoldRule, WantedRule, find_rules_for


def by_rule(
    connection: AnyConnection, incoming: Sequence[DatedEarning], *, now: datetime, buffer: timedelta
) -> tuple[list[DatedEarning], dict[str, Refused]]:
    """Return the earnings by the terms of their rules, and reference -> refusal of the others.

    An earning without a rule is returned as it is. One whose dates are not in order is refused.
    """
    ruled: list[DatedEarning] = []
    refused: dict[str, Refused] = {}
    wanted = [WantedRule(item.earning.rule, item.earning.payee, item.earning.currency) for item in incoming]
    for item, rule in zip(incoming, find_rules_for(connection, wanted), strict=True):
        refusal = rule if isinstance(rule, Refused) else None
        if isinstance(rule, HoldRule):
            try:
                item = with_terms(item.checked, now=now, buffer=buffer, rule=rule)  # noqa: PLW2901
            except RuleRefused as rule_refusal:
                refusal = rule_refusal
        refusal = refusal or item.refusal
        if refusal is None:
            ruled.append(item)
        else:
            refused[item.earning.reference] = refusal
    return ruled, refused
