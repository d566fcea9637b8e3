"""Find hold rules: which one applies, one version, all of them. Reads only."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from buffer_pipeline.database import AnyConnection, Row, array_text, fetch
from buffer_pipeline.errors import InvalidInput, NotFound, Refused, RuleRefused
from buffer_pipeline.inputs import ID_MAX, require_text
from buffer_pipeline.policy import Policy
from buffer_pipeline.rules.rule import STANDARD, HoldRule, rule_of_settings

_FOUND: Final = frozenset({"place", "chosen", "is_assigned", "out_of_use_since"})
"""Columns of `find_rules.sql` that are not the rule's."""


class WantedRule(NamedTuple):
    """The rule of an earning in `currency` is wanted: the one that the caller names, or else the payee's."""

    name: str | None
    payee: str
    currency: str | None
    """None accepts a rule of any currency."""


def find_rules_for(
    connection: AnyConnection, wanted: Sequence[WantedRule]
) -> list[HoldRule | Refused | None]:
    """Return the rule that applies to each: the named one, else the payee's, else `standard`. One statement.

    Of the rule's versions in use it is the newest for the currency, or else the newest without a currency.
    None means the settings' defaults. The refusal of a rule that cannot be used is at its place: `NotFound`,
    or `RuleRefused` if it is retired or of another currency.
    """
    outcomes: dict[int, HoldRule | Refused | None] = {}
    asked: dict[tuple[str, str, str], list[int]] = {}
    for place, want in enumerate(wanted):
        try:
            name = "" if want.name is None else require_text("rule", want.name)
            # Named, it does not depend on the payee.
            payee = "" if name else require_text("payee", want.payee)
        except InvalidInput as refusal:
            outcomes[place] = refusal
        else:
            asked.setdefault((name, payee, want.currency or ""), []).append(place)
    if asked:
        rows = fetch(
            connection,
            "rules/find_rules",
            names=array_text([name for name, _, _ in asked]),
            payees=array_text([payee for _, payee, _ in asked]),
            currencies=array_text([currency for _, _, currency in asked]),
        )
        places_asked = list(asked.values())
        for row in rows:
            for place in places_asked[row["place"] - 1]:
                outcomes[place] = _usable(row, wanted[place])
    return [outcomes.get(place) for place in range(len(wanted))]


def _usable(row: Row, want: WantedRule) -> HoldRule | Refused | None:
    name = row["chosen"]
    if row["rule_id"] is None:
        return None if name == STANDARD else NotFound(f"rule {name!r}: does not exist", rule=name)
    rule = HoldRule.of_row({column: value for column, value in row.items() if column not in _FOUND})
    whose = f", which {want.payee!r} has" if row["is_assigned"] else ""
    of_another_currency = None not in (rule.currency, want.currency) and rule.currency != want.currency
    if name == STANDARD and (row["out_of_use_since"] is not None or of_another_currency):
        return None
    if row["out_of_use_since"] is not None:
        return RuleRefused(
            f"rule {name!r}{whose}: retired since {row['out_of_use_since'].isoformat()}",
            rule=name,
            state="RETIRED",
        )
    if of_another_currency:
        return RuleRefused(f"{rule}{whose}: is for {rule.currency}, not for {want.currency}", rule=name)
    return rule


def read_rules(connection: AnyConnection, rule_ids: Iterable[int]) -> dict[int, HoldRule]:
    """Return the versions of rules with these ids, by id: the terms of holds. An unknown id is left out."""
    ids = sorted(set(rule_ids))
    rows = fetch(connection, "rules/read_rules", rule_ids=array_text(ids))
    return {row["rule_id"]: HoldRule.of_row(row) for row in rows}


def read_policies(
    connection: AnyConnection, rule_ids: Iterable[int | None], *, defaults: Policy | None = None
) -> dict[int | None, Policy]:
    """Return the numbers in the rules of holds, by rule_id: of None the defaults."""
    defaults = defaults or Policy()
    known = {rule_id for rule_id in rule_ids if rule_id is not None}
    rules = read_rules(connection, known) if known else {}
    return {None: defaults, **{rule_id: rule.policy(defaults) for rule_id, rule in rules.items()}}


def list_rules(connection: AnyConnection, *, policy: Policy | None = None) -> list[HoldRule]:
    """Return the newest version of each rule for each of its currencies, by name.

    `standard` is first; the settings' defaults are its version without a currency if it has none in use.
    """
    rules = [HoldRule.of_row(row) for row in fetch(connection, "rules/list_rules", rule=None)]
    standard = [rule for rule in rules if rule.name == STANDARD and rule.retired_at is None]
    if all(rule.currency is not None for rule in standard):
        standard.insert(0, rule_of_settings(policy or Policy()))
    return [*standard, *(rule for rule in rules if rule.name != STANDARD)]


def show_rule(
    connection: AnyConnection, *, name: str, version: int | None = None, policy: Policy | None = None
) -> HoldRule:
    """Return a version of a rule, by default the newest one.

    Without a version of `standard`, or after it was retired, that is the settings' defaults.

    Raises:
        NotFound: no such rule or version.
    """
    require_text("name", name)
    versions = [HoldRule.of_row(row) for row in fetch(connection, "rules/list_rules", rule=name)]
    if version is None:
        if name == STANDARD and (not versions or versions[0].retired_at is not None):
            return rule_of_settings(policy or Policy())
        if not versions:
            raise NotFound(f"rule {name!r}: does not exist", rule=name)
        return versions[0]
    for rule in versions:
        if rule.version == version:
            return rule
    shown = f" {version}" if isinstance(version, int) and abs(version) <= ID_MAX else ""
    has = f"it has {len(versions)}" if versions else "the rule does not exist"
    raise NotFound(f"rule {name!r}: no version{shown}; {has}", rule=name)


def count_owners(connection: AnyConnection, names: Sequence[str]) -> dict[str, int]:
    """Return how many owners have each of these rules; a rule that none has is left out."""
    rows = fetch(connection, "rules/count_owners", names=array_text(list(names)))
    return {row["name"]: row["owners"] for row in rows}
