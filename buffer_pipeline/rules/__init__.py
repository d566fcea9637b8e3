"""Hold rules: named terms of holds, with versions. Which one applies, and the shares that it makes."""

from buffer_pipeline.rules.change import add_rule, assign_rule, retire_rule, unassign_rule
from buffer_pipeline.rules.find import (
    WantedRule,
    count_owners,
    find_rules_for,
    list_rules,
    read_policies,
    read_rules,
    show_rule,
)
from buffer_pipeline.rules.rule import (
    STANDARD,
    HoldRule,
    OnRefund,
    RuleAssignment,
    TaxOf,
    percent_text,
    rule_of_settings,
    shares_by_rule,
)

__all__ = [
    "STANDARD",
    "HoldRule",
    "OnRefund",
    "RuleAssignment",
    "TaxOf",
    "WantedRule",
    "add_rule",
    "assign_rule",
    "count_owners",
    "find_rules_for",
    "list_rules",
    "percent_text",
    "read_policies",
    "read_rules",
    "retire_rule",
    "rule_of_settings",
    "shares_by_rule",
    "show_rule",
    "unassign_rule",
]
