"""The rules of hold rules: which one applies to an earning, and how it divides an amount."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from buffer_pipeline.errors import NotFound, RuleRefused
from buffer_pipeline.rules import STANDARD
from buffer_pipeline.shares import ShareKind
from buffer_pipeline_tests.support.model.amounts import largest_remainder, minor


@dataclass(frozen=True)
class ModelRule:
    """A version of a rule, with its terms as arguments of `add_rule`."""

    name: str
    version: int
    terms: Mapping[str, Any]
    retired: bool = False


class RuleBook:
    """The newest version of each rule, and the assignments."""

    def __init__(self) -> None:
        self.rules: dict[str, ModelRule] = {}
        self.assigned: dict[str, str] = {}
        """Owner -> rule."""

    def add(self, name: str, terms: Mapping[str, Any]) -> ModelRule:
        """Add the next version of a rule."""
        version = self.rules[name].version + 1 if name in self.rules else 1
        rule = self.rules[name] = ModelRule(name, version, terms)
        return rule

    def retire(self, name: str) -> None:
        """Take a rule out of use."""
        self._usable(name)
        if name in self.assigned.values():
            raise RuleRefused("is assigned")
        rule = self.rules[name]
        self.rules[name] = ModelRule(name, rule.version, rule.terms, retired=True)

    def assign(self, owner: str, name: str) -> None:
        """Give an owner a rule."""
        if name == STANDARD:
            raise RuleRefused("everybody has it")
        self._usable(name)
        self.assigned[owner] = name

    def unassign(self, owner: str) -> None:
        """Remove an owner's rule."""
        if owner not in self.assigned:
            raise NotFound("no rule of their own")
        del self.assigned[owner]

    def of_earning(self, named: str | None, payee: str, currency: str) -> ModelRule | None:
        """Return the applicable rule; None means the settings' defaults."""
        name = named or self.assigned.get(payee, STANDARD)
        standing = self.rules.get(name)
        if name == STANDARD and (standing is None or standing.retired):
            return None
        rule = self._usable(name)
        if rule.terms.get("currency") not in (None, currency):
            raise RuleRefused("has another currency")
        return rule

    def _usable(self, name: str) -> ModelRule:
        if name not in self.rules:
            raise NotFound("no such rule")
        if self.rules[name].retired:
            raise RuleRefused("retired")
        return self.rules[name]


def divide_by_rule(
    rule: ModelRule, *, amount_minor: int, currency: str, payee: str, payer: str
) -> list[tuple[ShareKind, str, int]]:
    """Return the share of each owner, the payee first, without empty ones."""
    terms = rule.terms
    if payer in (terms.get("fee_owner"), terms.get("tax_owner")):
        raise RuleRefused("a share for the payer")
    fee = _percent(terms, "fee_percent") * amount_minor
    if "fee_fixed" in terms:
        fee += minor(terms["fee_fixed"], currency)
    tax = _percent(terms, "tax_percent") * (amount_minor - (fee if terms.get("tax_of") == "net" else 0))
    left = amount_minor - fee - tax
    if fee > amount_minor or left <= 0:
        raise RuleRefused("leaves nothing for the payee")
    reserve = _percent(terms, "reserve_percent") * left
    exact: Final = (left - reserve, fee, tax, reserve)
    parts = largest_remainder(amount_minor, exact)
    if not parts[0]:
        raise RuleRefused("leaves nothing for the payee")
    owners = (payee, terms.get("fee_owner"), terms.get("tax_owner"), payee)
    kinds = (ShareKind.PAYEE, ShareKind.FEE, ShareKind.TAX, ShareKind.RESERVE)
    return [
        (kind, owner, part_minor)
        for kind, owner, part_minor in zip(kinds, owners, parts, strict=True)
        if part_minor and owner is not None
    ]


def _percent(terms: Mapping[str, Any], name: str) -> Fraction:
    return Fraction(terms.get(name, "0")) / 100
