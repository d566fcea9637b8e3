"""Explain a hold: what keeps it, until when, what would shorten that, and who can do it. Reads only."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from buffer_pipeline.database import AnyConnection, Row
from buffer_pipeline.explain.reason import Actor, Explanation, Reason, ReasonCode, Way, WayVerb, run_at
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.inputs import require_time
from buffer_pipeline.policy import Policy
from buffer_pipeline.reads import Hold
from buffer_pipeline.reads.holds import find_rows, hold_of
from buffer_pipeline.rules import HoldRule
from buffer_pipeline.shares import ShareKind

_FREEZES = {
    FreezeKind.BACKJOB: ReasonCode.BACKJOB_OPEN,
    FreezeKind.ADMIN: ReasonCode.ADMIN_FREEZE,
    FreezeKind.RISK: ReasonCode.RISK_FREEZE,
}
_HISTORY = {
    "RESCHEDULE": ReasonCode.DATE_MOVED,
    "EARNING": ReasonCode.RELEASED,
    "EARNING_PART": ReasonCode.PART_RELEASED,
    "REFUND": ReasonCode.REFUNDED,
    "CLAWBACK": ReasonCode.CLAWED_BACK,
}


def explain_hold(
    connection: AnyConnection,
    *,
    hold_id: int | None = None,
    reference: str | None = None,
    now: datetime | None = None,
    policy: Policy | None = None,
) -> Explanation:
    """Say why a hold is held, or what became of it, and what would release it earlier.

    The hold is named by its id, or by the reference of an earning whose own hold it is. `now` is the time of
    the answer, by default the database's clock. `policy` is the one that the platform passes to the verbs.
    Times of releases are the hours of the release run, which begins on the full hour. Several things that
    keep a hold are all listed; each way says what then still keeps it.

    Raises:
        InvalidInput, NotFound: as `find_hold`.
    """
    # All facts come from one statement, so that they are of one moment.
    rows = find_rows(connection, "explain/facts", hold_id=hold_id, reference=reference)
    hold = hold_of(rows[0])
    now = rows[0]["now"] if now is None else require_time("now", now)
    facts = [row for row in rows if row["fact"] is not None]
    waits = hold.state is HoldState.BUFFERED
    return Explanation(
        hold=hold,
        at=now,
        released_at=run_at(hold.release_date, now=now) if waits else None,
        reasons=(*_waiting(hold, rows[0], facts, now=now, policy=policy), *_history(hold, facts)),
    )


def _waiting(
    hold: Hold, row: Row, facts: Sequence[Row], *, now: datetime, policy: Policy | None
) -> list[Reason]:
    """Return what keeps an unsettled hold; nothing for a settled one."""
    if hold.state not in (HoldState.BUFFERED, HoldState.FROZEN):
        return []
    terms = _terms(row, defaults=policy or Policy())
    reasons: list[Reason | None] = []
    if hold.state is HoldState.FROZEN:
        freezes = [fact for fact in facts if fact["fact"] in _FREEZES]
        reasons = _frozen(hold, freezes, now=now, cooldown=terms.cooldown)
    by_date = _by_date(hold, now=now, minimum=terms.minimum, is_share_frozen=row["is_share_frozen"])
    if by_date is not None and by_date.code is ReasonCode.IN_WINDOW:
        by_date = replace(by_date, backjob_until=_backjob_until(hold, row, now=now, terms=terms))
    reasons.append(by_date)
    if row["debt_minor"]:
        reasons.append(Reason(code=ReasonCode.OWES_DEBT, amount_minor=row["debt_minor"]))
    return [reason for reason in reasons if reason is not None]


def _terms(row: Row, *, defaults: Policy) -> Policy:
    """Return the numbers of the hold's rule."""
    if row["rule"] is None:
        return defaults
    rule = HoldRule(
        name=row["rule"],
        days=row["rule_days"],
        min_days=row["rule_min_days"],
        cooldown_hours=row["rule_cooldown_hours"],
        max_backjobs=row["rule_max_backjobs"],
    )
    return rule.policy(defaults)


def _backjob_until(hold: Hold, row: Row, *, now: datetime, terms: Policy) -> datetime | None:
    """Return until when `request_backjob` would freeze the hold; None if it would not do so now."""
    payees_date: datetime | None = row["payees_release_date"]
    if not row["is_of_job"] or row["open_backjob_id"] is not None:
        return None
    if row["backjobs_rejected"] >= terms.max_backjobs_per_job or payees_date is None or payees_date <= now:
        return None
    # The window of a fee or a tax is that of the payee's share.
    return min(hold.release_date, payees_date)


def _by_date(hold: Hold, *, now: datetime, minimum: timedelta, is_share_frozen: bool) -> Reason | None:
    """Return the window, the reserve or the next run; None for a frozen hold that is due."""
    waits = hold.release_date > now
    if not waits and hold.state is HoldState.FROZEN:
        return None
    code = ReasonCode.IN_WINDOW
    if not waits:
        code = ReasonCode.WAITS_FOR_NEXT_RUN
    elif hold.kind is ShareKind.RESERVE:
        code = ReasonCode.RESERVE
    ways = []
    # An early release takes all of these shares or none, and a frozen one refuses it.
    if not is_share_frozen:
        ways = _early(hold, now=now, minimum=minimum)
    if not waits:
        run = Way(
            verb=WayVerb.RELEASE_MATURED,
            who=Actor.OPERATOR,
            target_id=hold.hold_id,
            released_at=now,
            at_once=True,
        )
        ways = [run, *ways]
    return Reason(
        code=code,
        since=hold.held_at if waits else hold.release_date,
        until=hold.release_date if waits else run_at(hold.release_date, now=now),
        ways=tuple(ways),
    )


def _early(hold: Hold, *, now: datetime, minimum: timedelta) -> list[Way]:
    """Return the early releases: by the payer after the minimum days, by an admin at any time."""
    by_admin = Way(
        verb=WayVerb.RELEASE_EARLY, who=Actor.ADMIN, target_id=hold.hold_id, released_at=now, at_once=True
    )
    if hold.kind is ShareKind.RESERVE:
        return [by_admin]
    earliest = hold.held_at + minimum
    later = earliest if minimum and earliest > now else None
    if later is not None and later >= run_at(hold.release_date, now=now):
        return [by_admin]
    by_payer = Way(
        verb=WayVerb.RELEASE_EARLY,
        who=Actor.PAYER,
        target_id=hold.hold_id,
        possible_from=later,
        released_at=later or now,
        at_once=True,
    )
    return [by_payer, by_admin]


def _frozen(hold: Hold, freezes: Sequence[Row], *, now: datetime, cooldown: timedelta) -> list[Reason | None]:
    """Return a reason for each open freeze."""
    if not freezes:
        return [Reason(code=ReasonCode.NO_OPEN_FREEZE)]
    reasons: list[Reason | None] = []
    for freeze in freezes:
        others = tuple(_code_of(other) for other in freezes if other is not freeze)
        reasons.append(_freeze(hold, freeze, others, now=now, cooldown=cooldown))
    return reasons


def _code_of(freeze: Row) -> ReasonCode:
    if freeze["owner_freeze_id"] is not None:
        return ReasonCode.OWNER_FROZEN
    return _FREEZES[freeze["fact"]]


def _freeze(
    hold: Hold, freeze: Row, others: tuple[ReasonCode, ...], *, now: datetime, cooldown: timedelta
) -> Reason:
    """Return the reason of one open freeze. Once it is closed, `others` still keep the hold."""

    def way(verb: WayVerb, who: Actor, target_id: int, release_date: datetime) -> Way:
        return Way(
            verb=verb,
            who=who,
            target_id=target_id,
            released_at=None if others else run_at(release_date, now=now),
            still_kept_by=others,
        )

    code = _code_of(freeze)
    backjob_id, freeze_id, owner_freeze_id = freeze["backjob_id"], None, freeze["owner_freeze_id"]
    ways: tuple[Way, ...]
    if code is ReasonCode.BACKJOB_OPEN:
        rejected_until = max(hold.release_date, now) + cooldown
        ways = (
            way(WayVerb.WITHDRAW_BACKJOB, Actor.PAYER, backjob_id, hold.release_date),
            way(WayVerb.REJECT_BACKJOB, Actor.ADMIN, backjob_id, rejected_until),
        )
    elif code is ReasonCode.OWNER_FROZEN:
        ways = (way(WayVerb.UNFREEZE_OWNER, Actor.ADMIN, owner_freeze_id, hold.release_date),)
    else:
        freeze_id = freeze["freeze_id"]
        ways = (way(WayVerb.UNFREEZE_HOLD, Actor.ADMIN, freeze_id, hold.release_date),)
    return Reason(
        code=code,
        since=freeze["since"],
        by=freeze["by"],
        reason=freeze["reason"],
        payee_text=freeze["payee_text"],
        backjob_id=backjob_id,
        freeze_id=freeze_id,
        owner_freeze_id=owner_freeze_id,
        ways=ways,
    )


def _history(hold: Hold, facts: Sequence[Row]) -> list[Reason]:
    """Return the moves of its date, then what left the buffer and was taken back, each the oldest first."""
    reasons = []
    for fact in facts:
        if fact["fact"] in _FREEZES:
            continue
        code = _HISTORY[fact["fact"]]
        if code is ReasonCode.RELEASED and fact["by"] is not None:
            code = ReasonCode.RELEASED_EARLY
        if code is ReasonCode.REFUNDED and hold.state is not HoldState.REFUNDED:
            code = ReasonCode.PART_REFUNDED
        reasons.append(
            Reason(
                code=code,
                since=fact["since"],
                by=fact["by"],
                reason=fact["reason"],
                amount_minor=fact["fact_minor"],
                backjob_id=fact["backjob_id"],
                from_date=fact["from_date"],
                to_date=fact["to_date"],
            )
        )
        if fact["recovered_minor"]:
            reasons.append(
                Reason(
                    code=ReasonCode.RECOVERED_FOR_DEBT,
                    since=fact["since"],
                    amount_minor=fact["recovered_minor"],
                )
            )
    return reasons
