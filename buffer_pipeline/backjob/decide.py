"""A backjob is rejected or withdrawn: its holds go back into the buffer."""

from datetime import datetime, timedelta

from buffer_pipeline.backjob.lookup import Backjob, find_backjob, replayed_backjob
from buffer_pipeline.database import AnyConnection, Row, fetch
from buffer_pipeline.errors import BackjobRefused, BooksOutOfBalance, NotFound, ReferenceConflict
from buffer_pipeline.hold import BackjobState
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import (
    require_id,
    require_not_before,
    require_reason,
    require_text,
    require_time,
)
from buffer_pipeline.locks import lock_job, lock_reference
from buffer_pipeline.policy import Policy


def reject_backjob(
    connection: AnyConnection,
    *,
    backjob_id: int,
    by: str,
    reason: str,
    now: datetime,
    reference: str | None = None,
    policy: Policy | None = None,
) -> Backjob:
    """Reject a backjob: its holds return to the buffer with the cooldown added.

    A hold that another freeze covers stays FROZEN. The new release date of the others is
    `greatest(release_date, now) + cooldown`, by the cooldown of the hold's rule, or else the policy's.
    `reference` is the idempotency key of the decision, also of a withdrawal or an approval.

    Raises:
        InvalidInput: `now` is more than a minute before the latest freeze of the backjob.
        NotFound: no such backjob.
        BackjobRefused: it is decided already.
        ReferenceConflict: the reference was used for another decision.
    """
    return _resume(
        connection,
        backjob_id=backjob_id,
        state=BackjobState.REJECTED,
        by=by,
        reason=reason,
        now=now,
        reference=reference,
        cooldown=(policy or Policy()).cooldown,
    )


def withdraw_backjob(
    connection: AnyConnection,
    *,
    backjob_id: int,
    by: str,
    reason: str,
    now: datetime,
    reference: str | None = None,
) -> Backjob:
    """Withdraw a backjob: its holds return to the buffer with their release dates unchanged.

    A hold that another freeze covers stays FROZEN.

    Raises:
        InvalidInput: `now` is more than a minute before the latest freeze of the backjob.
        NotFound: no such backjob.
        BackjobRefused: it is decided already.
        ReferenceConflict: the reference was used for another decision.
    """
    return _resume(
        connection,
        backjob_id=backjob_id,
        state=BackjobState.WITHDRAWN,
        by=by,
        reason=reason,
        now=now,
        reference=reference,
        cooldown=None,
    )


def _resume(
    connection: AnyConnection,
    *,
    backjob_id: int,
    state: BackjobState,
    by: str,
    reason: str,
    now: datetime,
    reference: str | None,
    cooldown: timedelta | None,
) -> Backjob:
    found = lock_open_backjob(
        connection, backjob_id=backjob_id, state=state, by=by, reason=reason, now=now, reference=reference
    )
    if isinstance(found, Backjob):
        return found
    job, now = found
    holds = fetch(connection, "backjob/lock_frozen_holds", backjob_id=backjob_id)
    rows = fetch(
        connection,
        "backjob/resume_backjob",
        backjob_id=backjob_id,
        state=state,
        decision_reference=reference,
        decided_by=by,
        reason=reason,
        now=now,
        cooldown=cooldown,
    )
    if not rows:
        raise BooksOutOfBalance(f"backjob {backjob_id}: decided without its job's lock meanwhile; roll back")
    return Backjob(
        backjob_id=backjob_id,
        job=job,
        state=state,
        hold_ids=tuple(hold["hold_id"] for hold in holds),
    )


def lock_open_backjob(
    connection: AnyConnection,
    *,
    backjob_id: int,
    state: BackjobState,
    by: str,
    reason: str,
    now: datetime,
    reference: str | None,
) -> tuple[str, datetime] | Backjob:
    """Lock the job of an open backjob. Return the job and the time of the decision.

    The time is `now`, or that of the newest freeze if `now` is slightly before it. If this reference
    was used for the same decision before, return the backjob instead.
    """
    require_time("now", now)
    require_text("by", by)
    require_reason(reason)
    require_id("backjob", backjob_id)
    enter_hour(connection, now=now)
    if reference is not None:
        lock_reference(connection, reference)
        if found := find_backjob(connection, decision_reference=reference):
            return _replay_decision(
                connection, found, backjob_id=backjob_id, state=state, by=by, reason=reason
            )
    lock_job(connection, _require_open(connection, backjob_id)["job"])
    # Read again: another transaction may have decided the backjob before it released the job's lock.
    found = _require_open(connection, backjob_id)
    # The newest freeze was opened by the request, or by the last hold that was added to the job.
    what = f"backjob {backjob_id} froze a hold"
    now = require_not_before(now, found["frozen_at"], what=what, backjob_id=backjob_id)
    return found["job"], now


def _require_open(connection: AnyConnection, backjob_id: int) -> Row:
    found = find_backjob(connection, backjob_id=backjob_id)
    if found is None:
        raise NotFound(f"backjob {backjob_id}: does not exist", backjob_id=backjob_id)
    if found["state"] != BackjobState.OPEN:
        raise BackjobRefused(
            f"backjob {backjob_id}: {found['state']} since {found['decided_at'].isoformat()};"
            " only an open one can be decided",
            backjob_id=backjob_id,
            job=found["job"],
            state=found["state"],
            allowed=(BackjobState.OPEN,),
        )
    return found


def _replay_decision(
    connection: AnyConnection, found: Row, *, backjob_id: int, state: BackjobState, by: str, reason: str
) -> Backjob:
    decided = (found["backjob_id"], found["state"], found["decided_by"], found["decision_reason"])
    if decided != (backjob_id, state, by, reason):
        raise ReferenceConflict(
            f"reference {found['decision_reference']!r}: already used for backjob {found['backjob_id']},"
            f" {found['state']} by {found['decided_by']!r}",
            reference=found["decision_reference"],
            backjob_id=found["backjob_id"],
            state=found["state"],
        )
    return replayed_backjob(connection, found)
