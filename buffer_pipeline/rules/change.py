"""Add and retire hold rules, and assign them to owners."""

from dataclasses import asdict
from datetime import datetime
from decimal import Decimal

from buffer_pipeline.currencies import bring_in, coming_in, places_of
from buffer_pipeline.database import AnyConnection, Row, fetch
from buffer_pipeline.errors import NotFound, RuleRefused
from buffer_pipeline.inputs import require_not_before, require_reason, require_text, require_time
from buffer_pipeline.policy import Policy
from buffer_pipeline.rules.find import count_owners
from buffer_pipeline.rules.rule import STANDARD, HoldRule, RuleAssignment
from buffer_pipeline.rules.terms import check_terms


def add_rule(
    connection: AnyConnection,
    *,
    name: str,
    by: str,
    reason: str,
    now: datetime,
    currency: str | None = None,
    days: int | None = None,
    min_days: int | None = None,
    cooldown_hours: int | None = None,
    max_backjobs: int | None = None,
    fee_percent: Decimal | int | str | None = None,
    fee_fixed: Decimal | int | str | None = None,
    fee_owner: str | None = None,
    fee_on_refund: str | None = None,
    tax_percent: Decimal | int | str | None = None,
    tax_of: str | None = None,
    tax_owner: str | None = None,
    reserve_percent: Decimal | int | str | None = None,
    reserve_days: int | None = None,
    recovery_percent: Decimal | int | str | None = None,
    policy: Policy | None = None,
) -> HoldRule:
    """Add the first version of a rule, or the next version of the rule with this name.

    Each term is optional; a term of the version before is not taken over. `fee_fixed` is in the major unit
    of `currency`. A fee is returned on a refund unless `fee_on_refund` is `keep`. A new version puts a
    retired rule back into use. `recovery_percent` of what is released may pay debts of the payee: from 0
    to 100, which is the default. `policy` has the settings' numbers, with which `min_days` is compared if
    the rule has no `days`.

    To run it again adds another version.

    Raises:
        InvalidInput: a value that cannot be accepted, a part of a fee, a tax or a reserve without the rest
            of it, or terms that leave nothing for the payee.
        Refused: another transaction added the currency at the same time with other places; roll back.
    """
    require_time("now", now)
    require_text("name", name)
    require_text("by", by)
    require_reason(reason)
    known = places_of(connection)
    places = None if currency is None else coming_in(known, currency)
    terms = check_terms(
        currency=currency,
        places=places,
        default_days=(policy or Policy()).buffer_days,
        days=days,
        min_days=min_days,
        cooldown_hours=cooldown_hours,
        max_backjobs=max_backjobs,
        fee_percent=fee_percent,
        fee_fixed=fee_fixed,
        fee_owner=fee_owner,
        fee_on_refund=fee_on_refund,
        tax_percent=tax_percent,
        tax_of=tax_of,
        tax_owner=tax_owner,
        reserve_percent=reserve_percent,
        reserve_days=reserve_days,
        recovery_percent=recovery_percent,
    )
    newest = _lock(connection, name)
    if currency is not None and places is not None:
        bring_in(connection, {currency: places}, known=known)
    rows = fetch(
        connection,
        "rules/add_rule",
        **asdict(terms),
        rule=name,
        version=1 if newest is None else newest["version"] + 1,
        currency=currency,
        added_by=by,
        reason=reason,
        now=now,
    )
    assert rows, "the version exists although its rule was locked"
    return HoldRule.of_row(rows[0])


def retire_rule(
    connection: AnyConnection, *, name: str, now: datetime, by: str | None = None, reason: str | None = None
) -> HoldRule:
    """Retire a rule, all versions of it: no earning that is added afterwards gets it.

    Holds that have it keep it. An earning that is being added at the same time may still get it.

    After rule `standard` is retired, the settings' defaults apply again.

    Raises:
        InvalidInput: `now` is more than a minute before the newest version was added.
        NotFound: no such rule.
        RuleRefused: it is retired already, or assigned to owners.
    """
    require_time("now", now)
    require_text("name", name)
    _require_who_and_why(by, reason)
    newest = _lock(connection, name)
    if newest is None:
        raise _not_found(name)
    if newest["retired_at"] is not None:
        raise _retired(name, newest["retired_at"])
    owners = count_owners(connection, [name]).get(name, 0)
    if owners:
        raise RuleRefused(
            f"rule {name!r}: assigned to {owners} {'owner' if owners == 1 else 'owners'};"
            " assign another rule to them, or unassign it, first",
            rule=name,
            state="ASSIGNED",
        )
    what = f"version {newest['version']} of rule {name!r} was added"
    now = require_not_before(now, newest["added_at"], what=what)
    rows = fetch(connection, "rules/retire_rule", rule_id=newest["rule_id"], by=by, reason=reason, now=now)
    return HoldRule.of_row(rows[0])


def assign_rule(
    connection: AnyConnection,
    *,
    owner: str,
    name: str,
    now: datetime,
    by: str | None = None,
    reason: str | None = None,
) -> RuleAssignment:
    """Record which rule an owner's earnings have from now on. Those in the buffer keep their rule.

    Safe to run again: it records another assignment of the same rule.

    Raises:
        InvalidInput: a text that cannot be accepted.
        NotFound: no such rule.
        RuleRefused: it is retired, or it is `standard`, which every owner without a rule has.
    """
    require_time("now", now)
    require_text("owner", owner)
    require_text("name", name)
    _require_who_and_why(by, reason)
    if name == STANDARD:
        raise RuleRefused(
            f"rule {STANDARD!r}: every owner without a rule of their own has it; unassign the owner's rule",
            rule=STANDARD,
            owner=owner,
        )
    newest = _lock(connection, name)
    if newest is None:
        raise _not_found(name)
    if newest["retired_at"] is not None:
        raise _retired(name, newest["retired_at"])
    fetch(connection, "rules/lock_owner", owner=owner)
    return _assign(connection, owner=owner, name=name, by=by, reason=reason, now=now)


def unassign_rule(
    connection: AnyConnection, *, owner: str, now: datetime, by: str | None = None, reason: str | None = None
) -> RuleAssignment:
    """Record that an owner's earnings have rule `standard` from now on. Those in the buffer keep their rule.

    Raises:
        InvalidInput: a text that cannot be accepted.
        NotFound: the owner has no rule of their own.
    """
    require_time("now", now)
    require_text("owner", owner)
    _require_who_and_why(by, reason)
    fetch(connection, "rules/lock_owner", owner=owner)
    found = fetch(connection, "rules/find_assignment", owner=owner)
    if not found or found[0]["name"] is None:
        raise NotFound(f"owner {owner!r}: has no rule of their own", owner=owner)
    return _assign(connection, owner=owner, name=None, by=by, reason=reason, now=now)


def _lock(connection: AnyConnection, name: str) -> Row | None:
    """Lock a rule until the transaction ends, and return its newest version; None if there is none."""
    fetch(connection, "rules/lock_rule", rule=name)
    rows = fetch(connection, "rules/lock_newest", rule=name)
    return rows[0] if rows else None


def _assign(
    connection: AnyConnection,
    *,
    owner: str,
    name: str | None,
    by: str | None,
    reason: str | None,
    now: datetime,
) -> RuleAssignment:
    rows = fetch(connection, "rules/assign_rule", owner=owner, rule=name, by=by, reason=reason, now=now)
    assert rows, "the assignment exists although its owner was locked"
    row = rows[0]
    return RuleAssignment(
        owner=row["owner"],
        rule=row["name"],
        assigned_by=row["assigned_by"],
        reason=row["reason"],
        assigned_at=row["assigned_at"],
    )


def _require_who_and_why(by: str | None, reason: str | None) -> None:
    if by is not None:
        require_text("by", by)
    if reason is not None:
        require_reason(reason)


def _not_found(name: str) -> NotFound:
    more = "; the settings' defaults apply" if name == STANDARD else ""
    return NotFound(f"rule {name!r}: does not exist{more}", rule=name)


def _retired(name: str, retired_at: datetime) -> RuleRefused:
    return RuleRefused(
        f"rule {name!r}: retired since {retired_at.isoformat()}; a new version puts it back into use",
        rule=name,
        state="RETIRED",
    )
