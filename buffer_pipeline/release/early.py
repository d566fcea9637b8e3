"""Release holds before their release date, or a part of one, as the payer or an admin wishes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import AnyConnection, Row
from buffer_pipeline.errors import (
    BooksOutOfBalance,
    DateRefused,
    InsufficientFunds,
    InvalidInput,
    NotAllowed,
    NotFound,
    StateRefused,
)
from buffer_pipeline.hold import NEXT_STATE, UNSETTLED, HoldState, Verb, states_that_allow
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import require_id, require_reason, require_text, require_time
from buffer_pipeline.locks import lock_holds, lock_reference
from buffer_pipeline.money import format_amount, parse_amount
from buffer_pipeline.policy import Policy
from buffer_pipeline.recovery import lock_wallets_and_creditors
from buffer_pipeline.release.batch import ReleaseBatch, release_holds
from buffer_pipeline.release.parts import release_parts
from buffer_pipeline.release.replay import find_replay
from buffer_pipeline.rules import read_policies
from buffer_pipeline.shares import ShareKind


def release_early(
    connection: AnyConnection,
    *,
    by: str,
    reason: str,
    now: datetime,
    hold_id: int | None = None,
    job: str | None = None,
    amount: Decimal | int | str | None = None,
    as_admin: bool = False,
    reference: str | None = None,
    policy: Policy | None = None,
) -> ReleaseBatch:
    """Release one hold, a part of it, or all of a job's unsettled holds, before the release date.

    Only the payer or an admin may do it; a payer only once the minimum days of the hold's rule are over, or
    those of the policy if the rule has none. A payer who releases all of a hold gives up the right to a
    backjob. If one hold is refused, none is released. With an earning's own hold, all its shares are released
    but the reserve, which only an admin can release, by its id.

    With `amount`, the payee gets that part of a hold, and the rest waits on, with its release date and its
    window. The id of an earning's own hold means all its shares: each gives in proportion to its amount.
    `reference` is the idempotency key: the same call again returns the first result and writes nothing.

    Raises:
        InvalidInput: both or neither of `hold_id` and `job` are given, `amount` without `hold_id` or without
            `reference`, or a value cannot be accepted.
        NotFound: no such hold, or no hold of such a job.
        NotAllowed: `by` is not the payer and `as_admin` is False.
        StateRefused: a hold is frozen or settled.
        DateRefused: the minimum days of a hold are not over, and `as_admin` is False.
        InsufficientFunds: `amount` is above what is held.
        BooksOutOfBalance: the credits differ from what was held; roll back.
        ReferenceConflict: the reference was used for another early release.
    """
    require_time("now", now)
    require_text("by", by)
    require_reason(reason)
    _require_named(hold_id, job, amount=amount, reference=reference)
    enter_hour(connection, now=now)
    if reference is not None:
        lock_reference(connection, reference)
    holds = lock_holds(connection, hold_ids=[] if hold_id is None else [hold_id], job=job, with_shares=True)
    if not holds:
        raise NotFound(
            f"hold {hold_id}: does not exist" if job is None else f"job {job!r}: has no hold",
            hold_id=hold_id,
            job=job,
        )
    amount_minor = None
    if amount is not None:
        currency = holds[0]["currency"]
        amount_minor = parse_amount(amount, currency, places_of(connection)[currency])
    if reference is not None:
        replay = find_replay(
            connection,
            reference=reference,
            by=by,
            reason=reason,
            hold_id=hold_id,
            holds=holds,
            amount_minor=amount_minor,
        )
        if replay is not None:
            return replace(replay, left_minor=_left(_chosen(holds), {}))
    holds = _chosen(holds)
    for hold in holds:
        _require_allowed(hold, by=by, as_admin=as_admin, part=amount is not None)
    if not as_admin:
        _require_old_enough(connection, holds, now=now, policy=policy or Policy())
    if amount_minor is not None:
        _require_held(connection, holds, amount_minor)
    # What is released pays the debts of the payees first.
    lock_wallets_and_creditors(connection, (hold["payee_wallet_id"] for hold in holds))
    why: dict[str, Any] = {
        "source": by,
        "reason": reason,
        "now": now,
        "reference": reference,
        "named_hold_id": hold_id,
    }
    if amount_minor is not None and amount_minor < sum(hold["amount_minor"] for hold in holds):
        batch, given = release_parts(connection, holds, amount_minor, **why)
        return replace(batch, left_minor=_left(holds, given))
    hold_ids = [hold["hold_id"] for hold in holds]
    batch = release_holds(connection, kind="EARLY", hold_ids=hold_ids, **why)
    if batch.holds_released != len(holds):
        raise BooksOutOfBalance(
            f"release: {len(holds)} holds were locked, {batch.holds_released} released; roll back"
        )
    return batch


def _require_named(
    hold_id: int | None, job: str | None, *, amount: Decimal | int | str | None, reference: str | None
) -> None:
    if (hold_id is None) == (job is None):
        raise InvalidInput("release early: needs a hold or a job, one of them")
    if hold_id is not None:
        require_id("hold", hold_id)
    else:
        require_text("job", job or "")
    if amount is not None and hold_id is None:
        raise InvalidInput(
            f"release early: an amount of job {job!r}; a part is released of one hold", job=job
        )
    if amount is not None and reference is None:
        raise InvalidInput("release early: a part needs a reference; without one, a repeated call pays twice")


def _chosen(holds: Sequence[Row]) -> Sequence[Row]:
    """Return those of the named hold's earning, or of a job, that an early release takes."""
    # A reserve is released by its own id only: then it is alone.
    holds = [hold for hold in holds if hold["kind"] != ShareKind.RESERVE] or holds
    if any(hold["state"] == HoldState.BUFFERED for hold in holds):
        # Settled holds of a job or an earning do not keep the others from being released.
        holds = [hold for hold in holds if hold["state"] in UNSETTLED]
    return holds


def _require_allowed(hold: Row, *, by: str, as_admin: bool, part: bool) -> None:
    verb = Verb.RELEASE_PART if part else Verb.RELEASE_EARLY
    if (HoldState(hold["state"]), verb) not in NEXT_STATE:
        raise StateRefused(
            hold_id=hold["hold_id"], state=hold["state"], verb=verb, allowed=states_that_allow(verb)
        )
    if hold["kind"] == ShareKind.RESERVE and not as_admin:
        raise NotAllowed(
            f"hold {hold['hold_id']}: is a reserve; only an admin may release it early",
            hold_id=hold["hold_id"],
            job=hold["job"],
        )
    if not as_admin and hold["payer"] != by:
        raise NotAllowed(
            f"hold {hold['hold_id']}: {by!r} may not release it early;"
            f" its payer {hold['payer']!r} or an admin may",
            hold_id=hold["hold_id"],
            job=hold["job"],
        )


def _require_old_enough(
    connection: AnyConnection, holds: Sequence[Row], *, now: datetime, policy: Policy
) -> None:
    """Refuse a hold whose minimum days are not over, by its rule, or by the policy if it has none."""
    policies = read_policies(connection, {hold["rule_id"] for hold in holds}, defaults=policy)
    for hold in holds:
        minimum = policies[hold["rule_id"]].minimum
        earliest = hold["held_at"] + minimum
        if minimum and now < earliest:
            raise DateRefused(
                f"hold {hold['hold_id']}: its payer may release it from {earliest.isoformat()} on;"
                " an admin may before that",
                hold_id=hold["hold_id"],
            )


def _require_held(connection: AnyConnection, holds: Sequence[Row], amount_minor: int) -> None:
    held_minor = sum(hold["amount_minor"] for hold in holds)
    if amount_minor > held_minor:
        currency = holds[0]["currency"]
        places = places_of(connection)[currency]
        shares = "" if len(holds) == 1 else " with its shares"
        raise InsufficientFunds(
            f"hold {holds[0]['hold_id']}: {format_amount(amount_minor, places)} {currency} is above"
            f" the {format_amount(held_minor, places)} that it holds{shares}",
            hold_id=holds[0]["hold_id"],
        )


def _left(holds: Sequence[Row], given: dict[int, int]) -> dict[str, int]:
    """Return what holds still hold after they have given parts, by currency."""
    left: dict[str, int] = {}
    for hold in holds:
        rest = hold["amount_minor"] - given.get(hold["hold_id"], 0)
        if rest:
            left[hold["currency"]] = left.get(hold["currency"], 0) + rest
    return left
