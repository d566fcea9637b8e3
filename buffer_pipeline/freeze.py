"""Freezes by an admin or by risk control. Several freezes can be open on a hold, also with a backjob's.

A freeze of an earning with shares covers all of them.
"""

from dataclasses import dataclass
from datetime import datetime

from buffer_pipeline.database import AnyConnection, Row, array_text, fetch
from buffer_pipeline.errors import (
    BooksOutOfBalance,
    FreezeRefused,
    InvalidInput,
    NotFound,
    ReferenceConflict,
    StateRefused,
)
from buffer_pipeline.hold import UNSETTLED, FreezeKind, HoldState, Verb, states_that_allow
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import (
    require_id,
    require_not_before,
    require_payee_text,
    require_reason,
    require_text,
    require_time,
)
from buffer_pipeline.locks import lock_holds, lock_reference


@dataclass(frozen=True, kw_only=True)
class Freeze:
    """A freeze after a verb. `hold_id` is the hold by whose id it was opened.

    `hold_ids` are the holds that it covers: that hold, or the shares of its earning that were unsettled then.
    `state` is the state of the first of them. `replayed` is True if an earlier call with the same reference
    did the work.
    """

    freeze_id: int
    hold_id: int
    state: HoldState
    hold_ids: tuple[int, ...]
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
    payee_text: str | None = None,
) -> Freeze:
    """Open a freeze on a hold; by the id of an earning's own hold, on all unsettled shares of the earning.

    By the id of another share, it covers that share only. The payee is notified once. `reference` is the
    idempotency key: the same call again returns the first freeze and writes nothing. Without a reference,
    each call opens another freeze.

    `reason` is internal. `payee_text` is what the payee of the hold is told instead: one line of at most 500
    characters. Without it, they are told that the payment is checked. The owners of other shares, such as a
    fee, are never told it.

    Raises:
        InvalidInput: `kind` is not ADMIN or RISK, a `payee_text` is for a payee of whom nothing would be
            frozen, or another value cannot be accepted.
        NotFound: no such hold.
        StateRefused: it is settled, and so are all shares that the freeze would cover.
        BooksOutOfBalance: a hold was not frozen although it is locked; roll back.
        ReferenceConflict: the reference was used for another freeze.
    """
    require_time("now", now)
    require_text("by", by)
    require_reason(reason)
    require_payee_text(payee_text)
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
            asked = (hold_id, kind, by, reason, payee_text)
            return _replay_opening(connection, found, asked)
    holds = lock_holds(connection, hold_ids=[hold_id], with_shares=True)
    if not holds:
        raise NotFound(f"hold {hold_id}: does not exist", hold_id=hold_id)
    unsettled = [hold["hold_id"] for hold in holds if hold["state"] in UNSETTLED]
    if not unsettled:
        raise StateRefused(
            hold_id=hold_id,
            state=holds[0]["state"],
            verb=Verb.FREEZE,
            allowed=states_that_allow(Verb.FREEZE),
        )
    # The lowest id is that of the hold by whose id the caller freezes: the text is for its payee.
    payee_wallet_id = holds[0]["payee_wallet_id"]
    told = [hold["hold_id"] for hold in holds if hold["payee_wallet_id"] == payee_wallet_id]
    if payee_text is not None and not set(told) & set(unsettled):
        raise InvalidInput(
            f"payee_text: of hold {hold_id} only shares of other owners are unsettled; leave it out",
            hold_id=hold_id,
        )
    rows = fetch(
        connection,
        "freeze/freeze_hold",
        # The first freeze has the text, so a share of the payee comes first.
        hold_ids=array_text(sorted(unsettled, key=lambda each: (each not in told, each))),
        told_ids=array_text(told),
        earning_id=hold_id if len(holds) > 1 else None,
        kind=kind,
        reference=reference,
        opened_by=by,
        reason=reason,
        payee_text=payee_text,
        now=now,
        notify=notify,
    )
    if not rows:
        raise BooksOutOfBalance(
            f"hold {hold_id}: {len(unsettled)} holds were locked, not all frozen; roll back"
        )
    return Freeze(
        freeze_id=rows[0]["freeze_id"], hold_id=hold_id, state=HoldState.FROZEN, hold_ids=tuple(unsettled)
    )


def unfreeze_hold(
    connection: AnyConnection,
    *,
    freeze_id: int,
    by: str,
    reason: str,
    now: datetime,
    reference: str | None = None,
) -> Freeze:
    """Close a freeze. A hold whose last freeze it was returns to the buffer with its date unchanged.

    A freeze of an earning is closed on all shares that it still covers, by its own id: that which
    `freeze_hold` returned. `reference` is the idempotency key of the closing.

    Raises:
        InvalidInput: `now` is more than a minute before the freeze was opened.
        NotFound: no such freeze.
        FreezeRefused: it is closed already, or it belongs to a backjob, to an owner's freeze or to that of an
            earning.
        BooksOutOfBalance: the hold is not FROZEN although the freeze is open; roll back.
        ReferenceConflict: the reference was used for another closing.
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
    if freeze["owner_freeze_id"] is not None:
        raise FreezeRefused(
            f"freeze {freeze_id}: belongs to the freeze of owner {freeze['owner']!r}; unfreeze the owner",
            freeze_ids=[freeze_id],
            hold_id=freeze["hold_id"],
            owner=freeze["owner"],
            allowed=("unfreeze_owner",),
        )
    if freeze["first_id"] != freeze_id:
        raise FreezeRefused(
            f"freeze {freeze_id}: belongs to freeze {freeze['first_id']} of the earning of hold"
            f" {freeze['named_hold_id']}; close that",
            freeze_ids=[freeze_id, freeze["first_id"]],
            hold_id=freeze["hold_id"],
            allowed=("unfreeze_hold",),
        )
    what = f"freeze {freeze_id} was opened"
    now = require_not_before(now, freeze["opened_at"], what=what, freeze_ids=[freeze_id])
    # Lock before the other freezes of the holds are read.
    lock_holds(connection, hold_ids=freeze["hold_ids"])
    rows = fetch(
        connection,
        "freeze/unfreeze_hold",
        freeze_ids=freeze["freeze_ids"],
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
            hold_id=closed["named_hold_id"],
            state="CLOSED",
            allowed=("OPEN",),
        )
    for row in rows:
        if row["state"] is None:
            raise BooksOutOfBalance(
                f"hold {row['hold_id']}: freeze {freeze_id} is open, and the hold is not FROZEN; roll back"
            )
    return _freeze_of(connection, freeze, replayed=False)


def _find(
    connection: AnyConnection,
    *,
    freeze_id: int | None = None,
    reference: str | None = None,
    closing_reference: str | None = None,
) -> Row | None:
    rows = fetch(
        connection,
        "freeze/find_freeze",
        freeze_id=freeze_id,
        reference=reference,
        closing_reference=closing_reference,
    )
    return rows[0] if rows else None


def _replay_opening(connection: AnyConnection, found: Row, asked: tuple[object, ...]) -> Freeze:
    names = ("named_hold_id", "kind", "opened_by", "reason", "payee_text")
    if tuple(found[name] for name in names) != asked:
        raise ReferenceConflict(
            f"reference {found['reference']!r}: already used for freeze {found['freeze_id']}, {found['kind']}"
            f" by {found['opened_by']!r} on hold {found['named_hold_id']}",
            reference=found["reference"],
            freeze_ids=[found["freeze_id"]],
            hold_id=found["named_hold_id"],
        )
    return _freeze_of(connection, found, replayed=True)


def _replay_closing(connection: AnyConnection, found: Row, *, freeze_id: int, by: str, reason: str) -> Freeze:
    if (found["first_id"], found["closed_by"], found["closing_reason"]) != (freeze_id, by, reason):
        raise ReferenceConflict(
            f"reference {found['closing_reference']!r}: already used for the closing of freeze"
            f" {found['first_id']} by {found['closed_by']!r}",
            reference=found["closing_reference"],
            freeze_ids=[found["first_id"]],
            hold_id=found["named_hold_id"],
        )
    return _freeze_of(connection, found, replayed=True)


def _freeze_of(connection: AnyConnection, found: Row, *, replayed: bool) -> Freeze:
    """Return a stored freeze with the present state of its first hold."""
    hold_ids = found["hold_ids"]
    states = fetch(
        connection,
        "locks/read_holds",
        hold_ids=hold_ids[:1],
        job=None,
        with_shares=False,
        locked_ids=hold_ids[:1],
    )
    return Freeze(
        freeze_id=found["first_id"],
        hold_id=found["named_hold_id"],
        state=HoldState(states[0]["state"]),
        hold_ids=tuple(hold_ids),
        replayed=replayed,
    )
