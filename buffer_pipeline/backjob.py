"""A client's request to have the work redone: it freezes the job's holds until it is decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import AnyConnection, Row, fetch, room_or_refusal
from buffer_pipeline.errors import (
    BackjobRefused,
    BooksOutOfBalance,
    FreezeRefused,
    InsufficientFunds,
    InvalidInput,
    NotAllowed,
    NotFound,
    ReferenceConflict,
    WindowClosed,
)
from buffer_pipeline.hold import UNSETTLED, BackjobState
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import (
    require_id,
    require_not_before,
    require_reason,
    require_text,
    require_time,
)
from buffer_pipeline.locks import lock_holds, lock_job, lock_reference, lock_wallets
from buffer_pipeline.money import format_amount, parse_amount, split_in_proportion
from buffer_pipeline.policy import Policy


@dataclass(frozen=True, kw_only=True)
class Backjob:
    """A backjob after a verb: how it stands and the holds that it concerns.

    `replayed` when a call with this reference had done it before.
    """

    backjob_id: int
    job: str
    state: BackjobState
    hold_ids: tuple[int, ...]
    replayed: bool = False


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

    The window is open while the release date lies after `now`: at the release date itself
    it is closed, whether or not the hourly job has run. Who may ask is the platform's to
    decide; `by` is recorded. With a `payer` the request is refused unless the job is theirs.
    `reference` is the idempotency key: with the same content it returns the first backjob, as it
    is now, and writes nothing.

    Raises:
        NotFound: the job has no hold.
        NotAllowed: the job's payer is not `payer`.
        WindowClosed: all its holds are settled or past their release date.
        BackjobRefused: one is open already, or `max_backjobs_per_job` were rejected.
        ReferenceConflict: the reference belongs to another request.
    """
    require_time("now", now)
    require_text("job", job)
    require_text("by", by)
    require_reason(reason)
    if payer is not None:
        require_text("payer", payer)
    policy = policy or Policy()

    enter_hour(connection, now=now)
    if reference is not None:
        lock_reference(connection, reference)
        if found := _find(connection, reference=reference):
            return _replay_request(connection, found, job=job, by=by, reason=reason, payer=payer)
    owned = _lock_owned(connection, job, payer)
    # Jobs from before revision 0014 may have holds of several payers: each can stop only what they paid.
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
    backjobs = fetch(connection, "backjobs_of_job", job=job)
    rejected = sum(row["state"] == BackjobState.REJECTED for row in backjobs)
    if rejected >= policy.max_backjobs_per_job:
        raise BackjobRefused(
            f"job {job!r}: {rejected} backjobs were rejected; at most {policy.max_backjobs_per_job}",
            job=job,
            state=BackjobState.REJECTED,
        )
    in_window = [hold["hold_id"] for hold in unsettled if hold["release_date"] > now]
    if not in_window:
        closed_at = max(hold["release_date"] for hold in unsettled)
        raise WindowClosed(
            f"job {job!r}: the window closed at {closed_at.isoformat()}, it is {now.isoformat()}", job=job
        )
    rows = fetch(
        connection,
        "open_backjob",
        reference=reference,
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
    reference: str | None = None,
    policy: Policy | None = None,
) -> Backjob:
    """Put each hold that no other freeze covers back into the buffer, with the cooldown on top.

    The new release date is `greatest(release_date, now) + cooldown`. `reference` is the idempotency
    key of the decision, as for the other two.

    Raises:
        InvalidInput: `now` is more than a minute before the latest of its freezes.
        NotFound: no such backjob.
        BackjobRefused: it is decided already.
        ReferenceConflict: the reference belongs to another decision.
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
    """Put each hold that no other freeze covers back into the buffer on its own date.

    Raises:
        InvalidInput: `now` is more than a minute before the latest of its freezes.
        NotFound: no such backjob.
        BackjobRefused: it is decided already.
        ReferenceConflict: the reference belongs to another decision.
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


def approve_backjob(
    connection: AnyConnection,
    *,
    backjob_id: int,
    by: str,
    reason: str,
    now: datetime,
    amount: Decimal | int | str | None = None,
    hold_ids: Sequence[int] | None = None,
    reference: str | None = None,
) -> Backjob:
    """Refund what the backjob's holds hold to the payer, or `amount` of it, or that of `hold_ids` only.

    A smaller amount is split over the holds in proportion to what each holds (largest
    remainder); what is not refunded goes back into the buffer on its own release date.

    Raises:
        InvalidInput: `now` is more than a minute before the latest of its freezes.
        NotFound: no such backjob, or one of `hold_ids` is not a hold that it freezes.
        BackjobRefused: it is decided already.
        FreezeRefused: another freeze stands on one of the holds.
        InsufficientFunds: `amount` is above what is held.
        WalletFull: more than the payer's wallet can hold.
        ReferenceConflict: the reference belongs to another decision.
    """
    named = None if hold_ids is None else {require_id("hold", hold_id) for hold_id in hold_ids}
    if named is not None and not named:
        raise InvalidInput(f"backjob {backjob_id}: hold_ids names no hold", backjob_id=backjob_id)
    found = _lock_open(
        connection,
        backjob_id=backjob_id,
        state=BackjobState.APPROVED,
        by=by,
        reason=reason,
        now=now,
        reference=reference,
    )
    if isinstance(found, Backjob):
        _require_same_refunds(connection, found, named, amount=amount, reference=reference)
        return found
    job, now = found
    holds = fetch(connection, "lock_frozen_holds", backjob_id=backjob_id)
    others = fetch(connection, "other_freezes", backjob_id=backjob_id)
    if others:
        standing = ", ".join(
            f"{row['kind']} freeze {row['freeze_id']} on hold {row['hold_id']}" for row in others
        )
        raise FreezeRefused(
            f"backjob {backjob_id}: cannot be approved while {standing} stands",
            backjob_id=backjob_id,
            hold_id=others[0]["hold_id"],
            freeze_ids=[row["freeze_id"] for row in others],
        )
    refunds = _split(connection, holds, named, backjob_id=backjob_id, amount=amount)
    lock_wallets(
        connection, (hold[side] for hold in holds for side in ("payee_wallet_id", "payer_wallet_id"))
    )
    with room_or_refusal(connection, f"backjob {backjob_id}: its payer's wallet", backjob_id=backjob_id):
        rows = fetch(
            connection,
            "refund_backjob",
            backjob_id=backjob_id,
            hold_ids=[hold["hold_id"] for hold in holds],
            refunds_minor=refunds,
            decision_reference=reference,
            decided_by=by,
            reason=reason,
            now=now,
        )
    refunded_minor = rows[0]["refunded_minor"] if rows else 0
    if refunded_minor != sum(refunds):
        raise BooksOutOfBalance(
            f"backjob {backjob_id}: {sum(refunds)} minor units were to be refunded,"
            f" {refunded_minor} were; roll back"
        )
    return Backjob(
        backjob_id=backjob_id,
        job=job,
        state=BackjobState.APPROVED,
        hold_ids=tuple(hold["hold_id"] for hold in holds),
    )


def _split(
    connection: AnyConnection,
    holds: Sequence[Row],
    named: set[int] | None,
    *,
    backjob_id: int,
    amount: Decimal | int | str | None,
) -> list[int]:
    """Return what is refunded of each hold, in minor units: 0 for those that are not named."""
    strangers = sorted((named or set()) - {hold["hold_id"] for hold in holds})
    if strangers:
        raise NotFound(
            f"backjob {backjob_id}: does not freeze hold {strangers[0]}",
            backjob_id=backjob_id,
            hold_id=strangers[0],
        )
    held = [hold["amount_minor"] if named is None or hold["hold_id"] in named else 0 for hold in holds]
    if amount is None:
        return held
    currencies = sorted({hold["currency"] for hold, of_it in zip(holds, held, strict=True) if of_it})
    if len(currencies) > 1:
        raise InvalidInput(
            f"backjob {backjob_id}: its holds are in {' and '.join(currencies)};"
            " approve it whole, name holds of one currency, or reject it",
            backjob_id=backjob_id,
        )
    currency = currencies[0]
    places = places_of(connection)[currency]
    amount_minor = parse_amount(amount, currency, places)
    if amount_minor > sum(held):
        raise InsufficientFunds(
            f"backjob {backjob_id}: {format_amount(amount_minor, places)} {currency} is above"
            f" the {format_amount(sum(held), places)} that its holds hold",
            backjob_id=backjob_id,
        )
    return split_in_proportion(amount_minor, held)


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
    found = _lock_open(
        connection, backjob_id=backjob_id, state=state, by=by, reason=reason, now=now, reference=reference
    )
    if isinstance(found, Backjob):
        return found
    job, now = found
    holds = fetch(connection, "lock_frozen_holds", backjob_id=backjob_id)
    rows = fetch(
        connection,
        "resume_backjob",
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


def _lock_open(
    connection: AnyConnection,
    *,
    backjob_id: int,
    state: BackjobState,
    by: str,
    reason: str,
    now: datetime,
    reference: str | None,
) -> tuple[str, datetime] | Backjob:
    """Lock an open backjob's job; return the job, and the time of the decision: `now`, or a moment later.

    Where something was decided with this reference before, return that.
    """
    require_time("now", now)
    require_text("by", by)
    require_reason(reason)
    require_id("backjob", backjob_id)
    enter_hour(connection, now=now)
    if reference is not None:
        lock_reference(connection, reference)
        if found := _find(connection, decision_reference=reference):
            return _replay_decision(
                connection, found, backjob_id=backjob_id, state=state, by=by, reason=reason
            )
    lock_job(connection, _require_open(connection, backjob_id)["job"])
    # Once more, now that whoever had locked the job has committed.
    found = _require_open(connection, backjob_id)
    # The newest freeze dates from the request, or from the last hold added to the job.
    what = f"backjob {backjob_id} froze a hold"
    now = require_not_before(now, found["frozen_at"], what=what, backjob_id=backjob_id)
    return found["job"], now


def _require_open(connection: AnyConnection, backjob_id: int) -> Row:
    found = _find(connection, backjob_id=backjob_id)
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


def _find(
    connection: AnyConnection,
    *,
    backjob_id: int | None = None,
    reference: str | None = None,
    decision_reference: str | None = None,
) -> Row | None:
    rows = fetch(
        connection,
        "find_backjob",
        backjob_id=backjob_id,
        reference=reference,
        decision_reference=decision_reference,
    )
    return rows[0] if rows else None


def _lock_owned(connection: AnyConnection, job: str, payer: str | None) -> Row:
    """Lock a job, which is `payer`'s where one is given, and return it."""
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
            f"reference {found['reference']!r}: stands for backjob {found['backjob_id']} on job"
            f" {found['job']!r}, requested by {found['requested_by']!r}",
            reference=found["reference"],
            backjob_id=found["backjob_id"],
            job=found["job"],
        )
    _lock_owned(connection, job, payer)
    return _replayed(connection, found)


def _replay_decision(
    connection: AnyConnection, found: Row, *, backjob_id: int, state: BackjobState, by: str, reason: str
) -> Backjob:
    decided = (found["backjob_id"], found["state"], found["decided_by"], found["decision_reason"])
    if decided != (backjob_id, state, by, reason):
        raise ReferenceConflict(
            f"reference {found['decision_reference']!r}: stands for backjob {found['backjob_id']},"
            f" {found['state']} by {found['decided_by']!r}",
            reference=found["decision_reference"],
            backjob_id=found["backjob_id"],
            state=found["state"],
        )
    return _replayed(connection, found)


def _require_same_refunds(
    connection: AnyConnection,
    done: Backjob,
    named: set[int] | None,
    *,
    amount: Decimal | int | str | None,
    reference: str | None,
) -> None:
    """Refuse an approval that is repeated with another amount, or without a hold that it refunded.

    Without an amount all that was left of these holds was meant.
    """
    holds = fetch(connection, "holds_of_backjob", backjob_id=done.backjob_id)
    refunded = {hold["hold_id"]: hold for hold in holds if hold["refunded_minor"]}
    same = named is None or refunded.keys() <= named
    if amount is None:
        meant = [hold for hold in holds if named is None or hold["hold_id"] in named]
        same = same and all(hold["refunded_whole"] for hold in meant)
    else:
        # One amount is of one currency.
        currency = next(iter(refunded.values()))["currency"]
        amount_minor = parse_amount(amount, currency, places_of(connection)[currency])
        same = same and amount_minor == sum(hold["refunded_minor"] for hold in refunded.values())
    if not same:
        raise ReferenceConflict(
            f"reference {reference!r}: stands for backjob {done.backjob_id},"
            " APPROVED with another amount or other holds",
            reference=reference,
            backjob_id=done.backjob_id,
            state=done.state,
        )


def _replayed(connection: AnyConnection, found: Row) -> Backjob:
    holds = fetch(connection, "holds_of_backjob", backjob_id=found["backjob_id"])
    return Backjob(
        backjob_id=found["backjob_id"],
        job=found["job"],
        state=BackjobState(found["state"]),
        hold_ids=tuple(hold["hold_id"] for hold in holds),
        replayed=True,
    )
