"""Freezes by an admin or by risk control; they stack with each other and with backjobs."""

from dataclasses import dataclass
from datetime import datetime

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.errors import FreezeRefused, InvalidInput, NotFound, StateRefused
from buffer_pipeline.hold import FreezeKind, HoldState, Verb, states_that_allow
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import require_id, require_reason, require_text, require_time
from buffer_pipeline.locks import lock_holds


@dataclass(frozen=True, kw_only=True)
class Freeze:
    """A freeze after a verb, and the state of its hold."""

    freeze_id: int
    hold_id: int
    state: HoldState


def freeze_hold(
    connection: AnyConnection,
    *,
    hold_id: int,
    kind: FreezeKind,
    by: str,
    reason: str,
    now: datetime,
    notify: bool = True,
) -> Freeze:
    """Put one more freeze on a hold.

    Raises:
        NotFound: no such hold.
        StateRefused: it is settled.
    """
    require_time("now", now)
    require_text("by", by)
    require_reason(reason)
    require_id("hold", hold_id)
    try:
        kind = FreezeKind(kind)
    except ValueError:
        raise InvalidInput(f"freeze on hold {hold_id}: kind {kind!r} is not ADMIN or RISK") from None
    if kind is FreezeKind.BACKJOB:
        raise InvalidInput(f"freeze on hold {hold_id}: a BACKJOB freeze comes with a backjob request")
    enter_hour(connection, now=now)
    rows = fetch(
        connection,
        "freeze_hold",
        hold_id=hold_id,
        kind=kind,
        opened_by=by,
        reason=reason,
        now=now,
        notify=notify,
    )
    if not rows:
        holds = lock_holds(connection, hold_ids=[hold_id])
        if not holds:
            raise NotFound(f"hold {hold_id}: does not exist")
        raise StateRefused(
            hold_id=hold_id,
            state=holds[0]["state"],
            verb=Verb.FREEZE,
            allowed=states_that_allow(Verb.FREEZE),
        )
    return Freeze(freeze_id=rows[0]["freeze_id"], hold_id=hold_id, state=HoldState.FROZEN)


def unfreeze_hold(
    connection: AnyConnection, *, freeze_id: int, by: str, reason: str, now: datetime
) -> Freeze:
    """Close a freeze; the hold goes back into the buffer, on its own date, with its last one.

    Raises:
        NotFound: no such freeze.
        FreezeRefused: it is closed already, or it is a backjob's.
    """
    require_time("now", now)
    require_text("by", by)
    require_reason(reason)
    require_id("freeze", freeze_id)
    freezes = fetch(connection, "find_freeze", freeze_id=freeze_id)
    if not freezes:
        raise NotFound(f"freeze {freeze_id}: does not exist")
    if freezes[0]["kind"] == FreezeKind.BACKJOB:
        raise FreezeRefused(
            f"freeze {freeze_id}: belongs to backjob {freezes[0]['backjob_id']};"
            " reject, approve or withdraw that"
        )
    enter_hour(connection, now=now)
    # The lock first: which other freezes stand is then read behind it.
    lock_holds(connection, hold_ids=[freezes[0]["hold_id"]])
    rows = fetch(connection, "unfreeze_hold", freeze_id=freeze_id, closed_by=by, reason=reason, now=now)
    if not rows:
        closed_at = fetch(connection, "find_freeze", freeze_id=freeze_id)[0]["closed_at"]
        raise FreezeRefused(f"freeze {freeze_id}: closed since {closed_at.isoformat()}")
    return Freeze(freeze_id=freeze_id, hold_id=rows[0]["hold_id"], state=HoldState(rows[0]["state"]))
