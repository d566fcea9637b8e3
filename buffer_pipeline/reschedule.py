"""The release date of an unsettled hold is moved: earlier by its payer or an admin, later by an admin.

The shares of an earning that have the date of its own hold move with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from buffer_pipeline.database import AnyConnection, Row, array_text, fetch
from buffer_pipeline.errors import (
    BooksOutOfBalance,
    DateRefused,
    NotAllowed,
    NotFound,
    ReferenceConflict,
    StateRefused,
)
from buffer_pipeline.hold import NEXT_STATE, HoldState, Verb, states_that_allow
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import require_id, require_reason, require_text, require_time
from buffer_pipeline.locks import lock_holds, lock_reference
from buffer_pipeline.policy import RESCHEDULE_DAYS_MAX, Policy
from buffer_pipeline.rules import read_policies


@dataclass(frozen=True, kw_only=True)
class Rescheduled:
    """A hold's release date after it was moved, and `was`, the date before.

    `hold_ids` are the holds that moved: that hold, and the shares of its earning that moved with it.
    `replayed` is True if an earlier call with the same reference did the work; the dates and the holds are
    those of that call.
    """

    hold_id: int
    release_date: datetime
    was: datetime
    hold_ids: tuple[int, ...]
    replayed: bool = False


def reschedule_hold(
    connection: AnyConnection,
    *,
    hold_id: int,
    to: datetime,
    by: str,
    reason: str,
    now: datetime,
    as_admin: bool = False,
    reference: str | None = None,
    policy: Policy | None = None,
) -> Rescheduled:
    """Move the release date of a BUFFERED or FROZEN hold. Its window for a backjob ends at the new date.

    By the id of an earning's own hold, its unsettled shares with the same release date move too; shares with
    another date stay. By the id of another share, that share only. If one of them is refused, none is moved.

    The payer may move it to an earlier date, and so gives up a part of the window. An admin may also move
    it to a later one, at most RESCHEDULE_DAYS_MAX after the original release date. The date of a FROZEN
    hold counts once the hold returns to the buffer. The payee is told once. `reference` is the idempotency
    key: the same call again returns the first result and writes nothing.

    Raises:
        NotFound: no such hold.
        NotAllowed: `by` is not the payer and `as_admin` is False, or a payer asks for a later date.
        StateRefused: it is settled.
        DateRefused: `to` is the present date, before `now`, too late, or, for a payer, before the minimum
            days of the hold's rule, or else the policy's.
        BooksOutOfBalance: a date was not moved as asked; roll back.
        ReferenceConflict: the reference was used for another move.
    """
    require_time("now", now)
    to = require_time("to", to)
    require_text("by", by)
    require_reason(reason)
    require_id("hold", hold_id)
    enter_hour(connection, now=now)
    if reference is not None:
        lock_reference(connection, reference)
        found = fetch(connection, "reschedule/find_move", reference=reference)
        if found:
            return _replay(found[0], hold_id=hold_id, to=to, by=by, reason=reason)
    holds = lock_holds(connection, hold_ids=[hold_id], with_shares=True)
    if not holds:
        raise NotFound(f"hold {hold_id}: does not exist", hold_id=hold_id)
    hold = holds[0]
    if (HoldState(hold["state"]), Verb.RESCHEDULE) not in NEXT_STATE:
        raise StateRefused(
            hold_id=hold_id,
            state=hold["state"],
            verb=Verb.RESCHEDULE,
            allowed=states_that_allow(Verb.RESCHEDULE),
        )
    _require_allowed(hold, to=to, by=by, as_admin=as_admin)
    moving = [
        share["hold_id"]
        for share in holds
        if (HoldState(share["state"]), Verb.RESCHEDULE) in NEXT_STATE
        and share["release_date"] == hold["release_date"]
    ]
    earliest = None
    if not as_admin:
        # The shares of an earning have its beginning and its rule.
        policies = read_policies(connection, [hold["rule_id"]], defaults=policy)
        earliest = hold["held_at"] + policies[hold["rule_id"]].minimum
    agreed = fetch(connection, "reschedule/agreed_dates", hold_ids=array_text(moving))
    _require_possible(hold, agreed, to=to, now=now, earliest=earliest)
    rows = fetch(
        connection,
        "reschedule/reschedule_hold",
        hold_ids=array_text(moving),
        from_date=hold["release_date"],
        to_date=to,
        moved_by=by,
        reason=reason,
        reference=reference,
        as_admin=as_admin,
        now=now,
    )
    if [row["hold_id"] for row in rows] != moving:
        raise BooksOutOfBalance(
            f"hold {hold_id}: {len(moving)} holds were locked, not all moved to {to.isoformat()}; roll back"
        )
    return Rescheduled(hold_id=hold_id, release_date=to, was=hold["release_date"], hold_ids=tuple(moving))


def _require_allowed(hold: Row, *, to: datetime, by: str, as_admin: bool) -> None:
    if as_admin:
        return
    if hold["payer"] != by:
        raise NotAllowed(
            f"hold {hold['hold_id']}: {by!r} may not move its release date;"
            f" its payer {hold['payer']!r} or an admin may",
            hold_id=hold["hold_id"],
            job=hold["job"],
        )
    if to > hold["release_date"]:
        raise NotAllowed(
            f"hold {hold['hold_id']}: its payer may move its release date only to before"
            f" {hold['release_date'].isoformat()}; an admin may move it to a later one",
            hold_id=hold["hold_id"],
            job=hold["job"],
        )


def _require_possible(
    hold: Row, agreed: Sequence[Row], *, to: datetime, now: datetime, earliest: datetime | None
) -> None:
    """Refuse a date that a hold, or a share that would move with it, cannot have.

    All of them have the same present date. The original dates, `agreed`, can differ.
    """
    present = hold["release_date"]
    # The share that was agreed for the earliest date decides; between equal ones the first.
    first = min(agreed, key=lambda share: (share["original_release_date"], share["hold_id"]))
    latest = first["original_release_date"] + timedelta(days=RESCHEDULE_DAYS_MAX)
    refused_id, refused = hold["hold_id"], f"hold {hold['hold_id']}"
    if to == present:
        why = "that is its release date already"
    elif to < now:
        why = f"that is before now, {now.isoformat()}; to release it at once, use release-now (release_early)"
    elif to > max(latest, present):
        if first["hold_id"] != refused_id:
            refused_id, refused = first["hold_id"], f"hold {first['hold_id']}, which moves with {refused}"
        why = (
            f"at most {RESCHEDULE_DAYS_MAX} days after its original release date,"
            f" which is until {latest.isoformat()}"
        )
    elif earliest is not None and to < earliest:
        why = f"its payer may move it to {earliest.isoformat()} at the earliest; an admin may to before that"
    else:
        return
    raise DateRefused(f"{refused}: cannot be moved to {to.isoformat()}; {why}", hold_id=refused_id)


def _replay(found: Row, *, hold_id: int, to: datetime, by: str, reason: str) -> Rescheduled:
    if (found["hold_id"], found["to_date"], found["moved_by"], found["reason"]) != (hold_id, to, by, reason):
        raise ReferenceConflict(
            f"reference {found['reference']!r}: already used for the move of hold {found['hold_id']} to"
            f" {found['to_date'].isoformat()} by {found['moved_by']!r}",
            reference=found["reference"],
            hold_id=found["hold_id"],
        )
    return Rescheduled(
        hold_id=hold_id,
        release_date=to,
        was=found["from_date"],
        hold_ids=tuple(found["hold_ids"]),
        replayed=True,
    )
