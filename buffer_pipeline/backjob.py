"""A client's request to have the work redone: it freezes the job's holds until it is decided."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.errors import (
    BackjobRefused,
    BooksOutOfBalance,
    FreezeRefused,
    InsufficientFunds,
    InvalidInput,
    NotFound,
    WindowClosed,
)
from buffer_pipeline.hold import UNSETTLED, BackjobState
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import require_id, require_reason, require_text, require_time
from buffer_pipeline.locks import lock_holds
from buffer_pipeline.money import format_amount, parse_amount, split_in_proportion
from buffer_pipeline.policy import Policy


@dataclass(frozen=True, kw_only=True)
class Backjob:
    """A backjob after a verb: how it stands and the holds that it concerns."""

    backjob_id: int
    job: str
    state: BackjobState
    hold_ids: tuple[int, ...]


def request_backjob(
    connection: AnyConnection,
    *,
    job: str,
    by: str,
    reason: str,
    now: datetime,
    policy: Policy | None = None,
) -> Backjob:
    """Open a backjob and freeze the job's unsettled holds whose window is open.

    The window is open while the release date lies after `now`: at the release date itself
    it is closed, whether or not the hourly job has run. Who may ask is the platform's to
    decide; `by` is recorded.

    Raises:
        NotFound: the job has no hold.
        WindowClosed: all its holds are settled or past their release date.
        BackjobRefused: one is open already, or `max_backjobs_per_job` were rejected.
    """
    require_time("now", now)
    require_text("job", job)
    require_text("by", by)
    require_reason(reason)
    policy = policy or Policy()

    enter_hour(connection, now=now)
    holds = lock_holds(connection, job=job)
    if not holds:
        raise NotFound(f"job {job!r}: has no hold")
    unsettled = [hold for hold in holds if hold["state"] in UNSETTLED]
    if not unsettled:
        raise WindowClosed(f"job {job!r}: all its holds are settled; a backjob needs an unsettled one")
    backjobs = fetch(connection, "backjobs_of_job", job=job)
    still_open = [row["backjob_id"] for row in backjobs if row["state"] == BackjobState.OPEN]
    if still_open:
        raise BackjobRefused(f"job {job!r}: backjob {still_open[0]} is open; one at a time")
    rejected = sum(row["state"] == BackjobState.REJECTED for row in backjobs)
    if rejected >= policy.max_backjobs_per_job:
        raise BackjobRefused(
            f"job {job!r}: {rejected} backjobs were rejected; at most {policy.max_backjobs_per_job}"
        )
    in_window = [hold["hold_id"] for hold in unsettled if hold["release_date"] > now]
    if not in_window:
        closed_at = max(hold["release_date"] for hold in unsettled)
        raise WindowClosed(
            f"job {job!r}: the window closed at {closed_at.isoformat()}, it is {now.isoformat()}"
        )
    rows = fetch(
        connection,
        "open_backjob",
        reference=None,
        job=job,
        requested_by=by,
        reason=reason,
        requested_at=now,
        hold_ids=in_window,
        now=now,
        notify=True,
    )
    return Backjob(
        backjob_id=rows[0]["backjob_id"],
        job=job,
        state=BackjobState.OPEN,
        hold_ids=tuple(in_window),
    )


def reject_backjob(
    connection: AnyConnection,
    *,
    backjob_id: int,
    by: str,
    reason: str,
    now: datetime,
    policy: Policy | None = None,
) -> Backjob:
    """Put each hold that no other freeze covers back into the buffer, with the cooldown on top.

    The new release date is `greatest(release_date, now) + cooldown`.

    Raises:
        NotFound: no such backjob.
        BackjobRefused: it is decided already.
    """
    return _resume(
        connection,
        backjob_id=backjob_id,
        state=BackjobState.REJECTED,
        by=by,
        reason=reason,
        now=now,
        cooldown=(policy or Policy()).cooldown,
    )


def withdraw_backjob(
    connection: AnyConnection, *, backjob_id: int, by: str, reason: str, now: datetime
) -> Backjob:
    """Put each hold that no other freeze covers back into the buffer on its own date.

    Raises:
        NotFound: no such backjob.
        BackjobRefused: it is decided already.
    """
    return _resume(
        connection,
        backjob_id=backjob_id,
        state=BackjobState.WITHDRAWN,
        by=by,
        reason=reason,
        now=now,
        cooldown=None,
    )


def approve_backjob(
    connection: AnyConnection,
    *,
    backjob_id: int,
    by: str,
    reason: str,
    now: datetime,
    amount: Decimal | int | str | None = None,
) -> Backjob:
    """Refund what the backjob's holds hold to the payer, or `amount` of it.

    A smaller amount is split over the holds in proportion to what each holds (largest
    remainder); the rest goes back into the buffer on its own release date.

    Raises:
        NotFound: no such backjob.
        BackjobRefused: it is decided already.
        FreezeRefused: another freeze stands on one of the holds.
        InsufficientFunds: `amount` is above what is held.
    """
    job = _require_open(connection, backjob_id=backjob_id, by=by, reason=reason, now=now)
    holds = fetch(connection, "lock_frozen_holds", backjob_id=backjob_id)
    # Once more, now that whoever held the locks has committed.
    _find_open(connection, backjob_id)
    others = fetch(connection, "other_freezes", backjob_id=backjob_id)
    if others:
        named = ", ".join(
            f"{row['kind']} freeze {row['freeze_id']} on hold {row['hold_id']}" for row in others
        )
        raise FreezeRefused(f"backjob {backjob_id}: cannot be approved while {named} stands")
    held = [hold["amount_minor"] for hold in holds]
    refunds = held
    if amount is not None:
        currencies = sorted({hold["currency"] for hold in holds})
        if len(currencies) > 1:
            raise InvalidInput(
                f"backjob {backjob_id}: its holds are in {' and '.join(currencies)};"
                " approve it whole, or reject it"
            )
        currency = currencies[0]
        amount_minor = parse_amount(amount, currency)
        if amount_minor > sum(held):
            raise InsufficientFunds(
                f"backjob {backjob_id}: {format_amount(amount_minor, currency)} {currency} is above"
                f" the {format_amount(sum(held), currency)} that its holds hold"
            )
        refunds = split_in_proportion(amount_minor, held)

    rows = fetch(
        connection,
        "refund_backjob",
        backjob_id=backjob_id,
        hold_ids=[hold["hold_id"] for hold in holds],
        refunds_minor=refunds,
        decided_by=by,
        reason=reason,
        now=now,
    )
    _require_decided(connection, rows, backjob_id=backjob_id)
    if rows[0]["refunded_minor"] != sum(refunds):
        raise BooksOutOfBalance(
            f"backjob {backjob_id}: {sum(refunds)} minor units were to be refunded,"
            f" {rows[0]['refunded_minor']} were; roll back"
        )
    return Backjob(
        backjob_id=backjob_id,
        job=job,
        state=BackjobState.APPROVED,
        hold_ids=tuple(hold["hold_id"] for hold in holds),
    )


def _resume(
    connection: AnyConnection,
    *,
    backjob_id: int,
    state: BackjobState,
    by: str,
    reason: str,
    now: datetime,
    cooldown: timedelta | None,
) -> Backjob:
    job = _require_open(connection, backjob_id=backjob_id, by=by, reason=reason, now=now)
    holds = fetch(connection, "lock_frozen_holds", backjob_id=backjob_id)
    rows = fetch(
        connection,
        "resume_backjob",
        backjob_id=backjob_id,
        state=state,
        decided_by=by,
        reason=reason,
        now=now,
        cooldown=cooldown,
    )
    _require_decided(connection, rows, backjob_id=backjob_id)
    return Backjob(
        backjob_id=backjob_id,
        job=job,
        state=state,
        hold_ids=tuple(hold["hold_id"] for hold in holds),
    )


def _require_open(connection: AnyConnection, *, backjob_id: int, by: str, reason: str, now: datetime) -> str:
    """Return the backjob's job."""
    require_time("now", now)
    require_text("by", by)
    require_reason(reason)
    require_id("backjob", backjob_id)
    enter_hour(connection, now=now)
    return _find_open(connection, backjob_id)


def _find_open(connection: AnyConnection, backjob_id: int) -> str:
    rows = fetch(connection, "find_backjob", backjob_id=backjob_id, reference=None)
    if not rows:
        raise NotFound(f"backjob {backjob_id}: does not exist")
    if rows[0]["state"] != BackjobState.OPEN:
        raise _decided_already(backjob_id, rows[0]["state"], rows[0]["decided_at"])
    return str(rows[0]["job"])


def _require_decided(connection: AnyConnection, rows: object, *, backjob_id: int) -> None:
    if not rows:
        # Somebody decided it while this transaction waited for the holds.
        _find_open(connection, backjob_id)


def _decided_already(backjob_id: int, state: str, decided_at: datetime) -> BackjobRefused:
    return BackjobRefused(
        f"backjob {backjob_id}: {state} since {decided_at.isoformat()}; only an open one can be decided"
    )
