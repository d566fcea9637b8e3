"""A hold rule, and the shares that it makes of an earning. Pure: no database."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Any, Final

from buffer_pipeline.errors import RuleRefused
from buffer_pipeline.policy import Policy
from buffer_pipeline.shares import PlannedShare, ShareKind, round_shares

STANDARD: Final = "standard"
"""The rule of every earning whose call names none and whose payee has none: the settings' defaults, until a
rule with this name is added."""


class OnRefund(StrEnum):
    """What happens to the fee of a refunded earning: it is returned to the payer, or its owner keeps it."""

    RETURN = "return"
    KEEP = "keep"


class TaxOf(StrEnum):
    """What a tax is a percentage of: the whole earning, or what is left after the fee."""

    GROSS = "gross"
    NET = "net"


@dataclass(frozen=True, kw_only=True)
class HoldRule:
    """One version of a rule, or the settings' defaults, which have no `rule_id` and no `version`.

    A term that is None is not set: `days`, `min_days`, `cooldown_hours` and `max_backjobs` are then the
    settings' (`policy`), there is no fee, no tax and no reserve, and all of what is released may pay the
    payee's debts. Percents are exact decimals: 12.5 is an eighth. A rule with a `currency` applies only to
    earnings in it; `fee_fixed_minor` is in its minor unit.
    """

    rule_id: int | None = None
    name: str
    version: int | None = None
    currency: str | None = None
    days: int | None = None
    min_days: int | None = None
    cooldown_hours: int | None = None
    max_backjobs: int | None = None
    fee_percent: Decimal | None = None
    fee_fixed_minor: int | None = None
    fee_owner: str | None = None
    fee_on_refund: OnRefund | None = None
    tax_percent: Decimal | None = None
    tax_of: TaxOf | None = None
    tax_owner: str | None = None
    reserve_percent: Decimal | None = None
    reserve_days: int | None = None
    recovery_percent: Decimal | None = None
    added_by: str | None = None
    reason: str | None = None
    added_at: datetime | None = None
    retired_by: str | None = None
    retirement_reason: str | None = None
    retired_at: datetime | None = None

    @classmethod
    def of_row(cls, row: Mapping[Any, Any]) -> "HoldRule":
        """Return the rule of a row of `buffer.hold_rule`."""
        rule = cls(**row)
        return replace(
            rule,
            fee_on_refund=None if rule.fee_on_refund is None else OnRefund(rule.fee_on_refund),
            tax_of=None if rule.tax_of is None else TaxOf(rule.tax_of),
        )

    def __str__(self) -> str:
        """Name the rule in a message."""
        return f"rule {self.name!r}" + ("" if self.version is None else f" version {self.version}")

    def policy(self, defaults: Policy) -> Policy:
        """Return the settings' numbers with those of the rule in their places.

        The settings' minimum days are at most the rule's days.
        """
        days = defaults.buffer_days if self.days is None else self.days
        return replace(
            defaults,
            buffer_days=days,
            cooldown_hours=defaults.cooldown_hours if self.cooldown_hours is None else self.cooldown_hours,
            max_backjobs_per_job=(
                defaults.max_backjobs_per_job if self.max_backjobs is None else self.max_backjobs
            ),
            min_days=min(defaults.min_days, days) if self.min_days is None else self.min_days,
        )


@dataclass(frozen=True, kw_only=True)
class RuleAssignment:
    """Which rule an owner has from `assigned_at` on; None if they have none of their own."""

    owner: str
    rule: str | None
    assigned_by: str | None
    reason: str | None
    assigned_at: datetime


def rule_of_settings(policy: Policy) -> HoldRule:
    """Return the settings' defaults as rule `standard`."""
    return HoldRule(
        name=STANDARD,
        days=policy.buffer_days,
        min_days=policy.min_days or None,
        cooldown_hours=policy.cooldown_hours,
        max_backjobs=policy.max_backjobs_per_job,
    )


def percent_text(percent: Decimal) -> str:
    """Return a percent without zeros at its end: "12.5"."""
    text = f"{percent:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def shares_by_rule(
    rule: HoldRule, *, amount_minor: int, payee: str, payer: str | None = None
) -> tuple[PlannedShare, ...]:
    """Divide an earning of `amount_minor`, in the rule's currency if it has one; the payee's share is first.

    The fee is a percentage of the earning plus the fixed amount. The tax is a percentage of the earning
    (gross) or of what the fee leaves (net). The reserve is a percentage of what both leave, and the payee
    gets the rest. All four are rounded together by the largest-remainder method, so that they add up to the
    earning. A share that rounds to nothing is left out.

    Raises:
        RuleRefused: the fee is above the amount, nothing is left for the payee, or `payer` is given and is
            the owner of the fee or the tax.
    """
    for name, owner in (("fee_owner", rule.fee_owner), ("tax_owner", rule.tax_owner)):
        if owner is not None and owner == payer:
            raise RuleRefused(f"{rule}: its {name} {owner!r} is the payer", rule=rule.name, owner=owner)
    fee = _fraction(rule.fee_percent) * amount_minor + (rule.fee_fixed_minor or 0)
    if fee > amount_minor:
        raise _nothing_left(rule, payee, "a fee above the amount")
    taxed = amount_minor - fee if rule.tax_of is TaxOf.NET else Fraction(amount_minor)
    tax = _fraction(rule.tax_percent) * taxed
    left = amount_minor - fee - tax
    if left <= 0:
        raise _nothing_left(rule, payee, "its fee and tax are not below the amount")
    reserve = _fraction(rule.reserve_percent) * left
    payee_minor, fee_minor, tax_minor, reserve_minor = round_shares(
        amount_minor, (left - reserve, fee, tax, reserve)
    )
    if not payee_minor:
        raise _nothing_left(rule, payee, "the amount is too small to be divided")
    shares = [PlannedShare(ShareKind.PAYEE, payee, payee_minor)]
    if fee_minor and rule.fee_owner is not None:
        shares.append(PlannedShare(ShareKind.FEE, rule.fee_owner, fee_minor))
    if tax_minor and rule.tax_owner is not None:
        shares.append(PlannedShare(ShareKind.TAX, rule.tax_owner, tax_minor))
    if reserve_minor:
        shares.append(PlannedShare(ShareKind.RESERVE, payee, reserve_minor, days=rule.reserve_days))
    return tuple(shares)


def _fraction(percent: Decimal | None) -> Fraction:
    return Fraction(0) if percent is None else Fraction(percent) / 100


def _nothing_left(rule: HoldRule, payee: str, why: str) -> RuleRefused:
    return RuleRefused(f"{rule}: {why}; nothing is left for payee {payee!r}", rule=rule.name, owner=payee)
