"""Freezes by an admin or by risk control; they stack with each other and with backjobs."""

from dataclasses import dataclass
from datetime import datetime

from buffer_pipeline.database import AnyConnection, Row, fetch
from buffer_pipeline.errors import (
    BooksOutOfBalance,
    FreezeRefused,
    InvalidInput,
    NotFound,
    ReferenceConflict,
    StateRefused,
)
from buffer_pipeline.hold import FreezeKind, HoldState, Verb, states_that_allow
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import (
    require_id,
    require_not_before,
    require_reason,
    require_text,
    require_time,
)
from buffer_pipeline.locks import lock_holds, lock_reference


@dataclass(frozen=True, kw_only=True)
class Freeze:
    """A freeze after a verb, and the state of its hold.

    `replayed` when a call with this reference had done it before.
    """

    freeze_id: int
    hold_id: int
    state: HoldState
    replayed: bool = False


def freeze_hold(
    connection: AnyConnection,
    *,
    hold_id: int,
    kind: FreezeKind,
    by: str,
    reason: str,
    now: datetime,
    reference: str | None = None,
    notify: bool = True,
) -> Freeze:
    """Put one more freeze on a hold.

    `reference` is the idempotency key: with the same content it returns the first freeze and writes
    nothing. Without one each call is another freeze.

    Raises:
        NotFound: no such hold.
        StateRefused: it is settled.
        ReferenceConflict: the reference belongs to another freeze.
    """
    require_time("now", now)
    require_text("by", by)
    require_reason(reason)
    require_id("hold", hold_id)
    try:
        kind = FreezeKind(kind)
    except ValueError:
        raise InvalidInput(
            f"freeze on hold {hold_id}: kind {kind!r} is not ADMIN or RISK", hold_id=hold_id
        ) from None
    if kind is FreezeKind.BACKJOB:
        raise InvalidInput(
            f"freeze on hold {hold_id}: a BACKJOB freeze comes with a backjob request", hold_id=hold_id
        )
    enter_hour(connection, now=now)
    if reference is not None:
        lock_reference(connection, reference)
        found = _find(connection, reference=reference)
        if found:
            return _replay_opening(connection, found, hold_id=hold_id, kind=kind, by=by, reason=reason)
    rows = fetch(
        connection,
        "freeze_hold",
        hold_id=hold_id,
        kind=kind,
        reference=reference,
        opened_by=by,
        reason=reason,
        now=now,
        notify=notify,
    )
    if not rows:
        holds = lock_holds(connection, hold_ids=[hold_id])
        if not holds:
            raise NotFound(f"hold {hold_id}: does not exist", hold_id=hold_id)
        raise StateRefused(
            hold_id=hold_id,
            state=holds[0]["state"],
            verb=Verb.FREEZE,
            allowed=states_that_allow(Verb.FREEZE),
        )
    return Freeze(freeze_id=rows[0]["freeze_id"], hold_id=hold_id, state=HoldState.FROZEN)


def unfreeze_hold(
    connection: AnyConnection,
    *,
    freeze_id: int,
    by: str,
    reason: str,
    now: datetime,
    reference: str | None = None,
) -> Freeze:
    """Close a freeze; the hold goes back into the buffer, on its own date, with its last one.

    `reference` is the idempotency key of the closing.

    Raises:
        InvalidInput: `now` is more than a minute before its opening.
        NotFound: no such freeze.
        FreezeRefused: it is closed already, or it is a backjob's.
        ReferenceConflict: the reference belongs to another closing.
    """
    require_time("now", now)
    require_text("by", by)
    require_reason(reason)
    require_id("freeze", freeze_id)
    enter_hour(connection, now=now)
    if reference is not None:
        lock_reference(connection, reference)
        found = _find(connection, closing_reference=reference)
        if found:
            return _replay_closing(connection, found, freeze_id=freeze_id, by=by, reason=reason)
    freeze = _find(connection, freeze_id=freeze_id)
    if freeze is None:
        raise NotFound(f"freeze {freeze_id}: does not exist", freeze_ids=[freeze_id])
    if freeze["kind"] == FreezeKind.BACKJOB:
        raise FreezeRefused(
            f"freeze {freeze_id}: belongs to backjob {freeze['backjob_id']};"
            " reject, approve or withdraw that",
            freeze_ids=[freeze_id],
            hold_id=freeze["hold_id"],
            backjob_id=freeze["backjob_id"],
            allowed=("reject", "approve", "withdraw"),
        )
    what = f"freeze {freeze_id} was opened"
    now = require_not_before(now, freeze["opened_at"], what=what, freeze_ids=[freeze_id])
    # The lock first: which other freezes are open is then read after it.
    lock_holds(connection, hold_ids=[freeze["hold_id"]])
    rows = fetch(
        connection,
        "unfreeze_hold",
        freeze_id=freeze_id,
        closed_by=by,
        reason=reason,
        closing_reference=reference,
        now=now,
    )
    if not rows:
        closed = _find(connection, freeze_id=freeze_id)
        assert closed is not None
        raise FreezeRefused(
            f"freeze {freeze_id}: closed since {closed['closed_at'].isoformat()};"
            " only an open one can be closed",
            freeze_ids=[freeze_id],
            hold_id=closed["hold_id"],
            state="CLOSED",
            allowed=("OPEN",),
        )
    hold_id, state = rows[0]["hold_id"], rows[0]["state"]
    if state is None:
        raise BooksOutOfBalance(
            f"hold {hold_id}: freeze {freeze_id} is open, and the hold is not FROZEN; roll back"
        )
    return Freeze(freeze_id=freeze_id, hold_id=hold_id, state=HoldState(state))


def _find(
    connection: AnyConnection,
    *,
    freeze_id: int | None = None,
    reference: str | None = None,
    closing_reference: str | None = None,
) -> Row | None:
    rows = fetch(
        connection,
        "find_freeze",
        freeze_id=freeze_id,
        reference=reference,
        closing_reference=closing_reference,
    )
    return rows[0] if rows else None


def _replay_opening(
    connection: AnyConnection, found: Row, *, hold_id: int, kind: FreezeKind, by: str, reason: str
) -> Freeze:
    if (found["hold_id"], found["kind"], found["opened_by"], found["reason"]) != (hold_id, kind, by, reason):
        raise ReferenceConflict(
            f"reference {found['reference']!r}: stands for freeze {found['freeze_id']}, {found['kind']} by"
            f" {found['opened_by']!r} on hold {found['hold_id']}",
            reference=found["reference"],
            freeze_ids=[found["freeze_id"]],
            hold_id=found["hold_id"],
        )
    return _replayed(connection, found)


def _replay_closing(connection: AnyConnection, found: Row, *, freeze_id: int, by: str, reason: str) -> Freeze:
    if (found["freeze_id"], found["closed_by"], found["closing_reason"]) != (freeze_id, by, reason):
        raise ReferenceConflict(
            f"reference {found['closing_reference']!r}: stands for the closing of freeze"
            f" {found['freeze_id']} by {found['closed_by']!r}",
            reference=found["closing_reference"],
            freeze_ids=[found["freeze_id"]],
            hold_id=found["hold_id"],
        )
    return _replayed(connection, found)


def _replayed(connection: AnyConnection, found: Row) -> Freeze:
    hold_id = found["hold_id"]
    state = fetch(connection, "read_holds", hold_ids=[hold_id], job=None, locked_ids=[hold_id])[0]["state"]
    return Freeze(freeze_id=found["freeze_id"], hold_id=hold_id, state=HoldState(state), replayed=True)
