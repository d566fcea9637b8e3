"""A client requests a backjob: the job's unsettled holds whose window is open are frozen."""

from datetime import datetime

from buffer_pipeline.backjob.lookup import Backjob, find_backjob, replayed_backjob
from buffer_pipeline.database import AnyConnection, Row, fetch
from buffer_pipeline.errors import BackjobRefused, NotAllowed, NotFound, ReferenceConflict, WindowClosed
from buffer_pipeline.hold import UNSETTLED, BackjobState
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import require_reason, require_text, require_time
from buffer_pipeline.locks import lock_holds, lock_job, lock_reference
from buffer_pipeline.policy import Policy
from buffer_pipeline.rules import read_policies
from buffer_pipeline.shares import ShareKind


def request_backjob(
    connection: AnyConnection,
    *,
    job: str,
    by: str,
    reason: str,
    now: datetime,
    payer: str | None = None,
    reference: str | None = None,
    policy: Policy | None = None,
) -> Backjob:
    """Open a backjob and freeze the job's unsettled holds whose window is open.

    The window of an earning is open while its payee's release date is after `now`. At the release date itself
    it is closed, whether or not the hourly job has run. Of an earning with shares, all that are not due yet
    are frozen; a reserve alone does not keep the window open. A hold is not frozen once as many backjobs of
    the job were rejected as its rule, or else the policy, allows. The platform decides who may request; `by`
    is only recorded. If `payer` is given, the request is refused unless the job has that payer. `reference`
    is the idempotency key: the same request again returns the first backjob in its present state and writes
    nothing.

    Raises:
        NotFound: the job has no hold.
        NotAllowed: the job's payer is not `payer`.
        WindowClosed: all holds of the job are settled or past their release date.
        BackjobRefused: a backjob is open already, or no hold allows another one after those that were
            rejected.
        ReferenceConflict: the reference was used for another request.
    """
    require_time("now", now)
    require_text("job", job)
    require_text("by", by)
    require_reason(reason)
    if payer is not None:
        require_text("payer", payer)

    enter_hour(connection, now=now)
    if reference is not None:
        lock_reference(connection, reference)
        if found := find_backjob(connection, reference=reference):
            return _replay_request(connection, found, job=job, by=by, reason=reason, payer=payer)
    owned = _lock_owned(connection, job, payer)
    # A job from before revision 0014 may have holds of several payers. Each can freeze only their own.
    holds = [hold for hold in lock_holds(connection, job=job) if hold["payer"] == owned["payer"]]
    if not holds:
        raise NotFound(f"job {job!r}: has no hold", job=job)
    unsettled = [hold for hold in holds if hold["state"] in UNSETTLED]
    if not unsettled:
        raise WindowClosed(
            f"job {job!r}: all its holds are settled; a backjob needs an unsettled one", job=job
        )
    if owned["open_backjob_id"] is not None:
        raise BackjobRefused(
            f"job {job!r}: backjob {owned['open_backjob_id']} is open; one at a time",
            job=job,
            backjob_id=owned["open_backjob_id"],
            state=BackjobState.OPEN,
        )
    backjobs = fetch(connection, "backjob/backjobs_of_job", job=job)
    rejected = sum(row["state"] == BackjobState.REJECTED for row in backjobs)
    open_earnings = {
        hold["earning_id"]
        for hold in unsettled
        if hold["kind"] == ShareKind.PAYEE and hold["release_date"] > now
    }
    in_window = {
        hold["hold_id"]
        for hold in unsettled
        if hold["earning_id"] in open_earnings and hold["release_date"] > now
    }
    policies = read_policies(connection, {hold["rule_id"] for hold in unsettled}, defaults=policy)
    limits = {
        hold["hold_id"]: policies[hold["rule_id"]].max_backjobs_per_job
        for hold in unsettled
        if not in_window or hold["hold_id"] in in_window
    }
    if rejected >= max(limits.values()):
        raise BackjobRefused(
            f"job {job!r}: {rejected} backjobs were rejected; at most {max(limits.values())}",
            job=job,
            state=BackjobState.REJECTED,
        )
    if not in_window:
        of_payees = [hold for hold in unsettled if hold["kind"] == ShareKind.PAYEE]
        if not of_payees:
            raise WindowClosed(f"job {job!r}: its payees' shares are settled; the window is closed", job=job)
        closed_at = max(hold["release_date"] for hold in of_payees)
        raise WindowClosed(
            f"job {job!r}: the window closed at {closed_at.isoformat()}, it is {now.isoformat()}", job=job
        )
    hold_ids = [hold_id for hold_id, limit in limits.items() if limit > rejected]
    rows = fetch(
        connection,
        "backjob/open_backjob",
        reference=reference,
        job=job,
        requested_by=by,
        reason=reason,
        requested_at=now,
        hold_ids=hold_ids,
        now=now,
        notify=True,
    )
    return Backjob(
        backjob_id=rows[0]["backjob_id"],
        job=job,
        state=BackjobState.OPEN,
        hold_ids=tuple(hold_ids),
    )


def _lock_owned(connection: AnyConnection, job: str, payer: str | None) -> Row:
    """Lock a job and return it. If `payer` is given, refuse a job of another payer."""
    owned = lock_job(connection, job)
    if owned is None:
        raise NotFound(f"job {job!r}: has no hold", job=job)
    if payer not in (None, owned["payer"]):
        raise NotAllowed(f"job {job!r}: its payer is {owned['payer']!r}, not {payer!r}", job=job)
    return owned


def _replay_request(
    connection: AnyConnection, found: Row, *, job: str, by: str, reason: str, payer: str | None
) -> Backjob:
    if (found["job"], found["requested_by"], found["reason"]) != (job, by, reason):
        raise ReferenceConflict(
            f"reference {found['reference']!r}: already used for backjob {found['backjob_id']} on job"
            f" {found['job']!r}, requested by {found['requested_by']!r}",
            reference=found["reference"],
            backjob_id=found["backjob_id"],
            job=found["job"],
        )
    _lock_owned(connection, job, payer)
    return replayed_backjob(connection, found)
