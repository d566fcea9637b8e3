"""Freezes of an owner: all holds that wait for the owner, and each new one, until the owner is unfrozen."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from buffer_pipeline.database import AnyConnection, Row, fetch, savepoint
from buffer_pipeline.errors import BooksOutOfBalance, FreezeRefused, InvalidInput, ReferenceConflict
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import (
    require_not_before,
    require_payee_text,
    require_reason,
    require_text,
    require_time,
)
from buffer_pipeline.locks import lock_reference


@dataclass(frozen=True, kw_only=True)
class OwnerFreeze:
    """An owner's freeze after a verb; `frozen` is True if it was opened, False if it was closed.

    `holds` are how many holds the verb froze, also those that were FROZEN already; or how many returned to
    the buffer, because no other freeze covers them. `replayed` is True if an earlier call with the same
    reference did the work.
    """

    owner_freeze_id: int
    owner: str
    frozen: bool
    holds: int
    replayed: bool = False


def freeze_owner(
    connection: AnyConnection,
    *,
    owner: str,
    kind: FreezeKind,
    by: str,
    reason: str,
    now: datetime,
    reference: str | None = None,
    payee_text: str | None = None,
) -> OwnerFreeze:
    """Freeze all holds that wait for the owner, in all currencies, and each new one when it is added.

    An owner without a wallet can be frozen too. The balance is not frozen, and neither is what the owner
    pays to others. `reference` is the idempotency key: the same call again returns what the first one did
    and writes nothing. `reason` is internal. `payee_text` is what the owner is told instead: one line of at
    most 500 characters.

    Raises:
        InvalidInput: `kind` is not ADMIN or RISK, or another value cannot be accepted.
        FreezeRefused: the owner is frozen already.
        ReferenceConflict: the reference was used for another freeze of an owner.
    """
    require_time("now", now)
    require_text("owner", owner)
    require_text("by", by)
    require_reason(reason)
    require_payee_text(payee_text)
    try:
        kind = FreezeKind(kind)
    except ValueError:
        raise InvalidInput(
            f"freeze of owner {owner!r}: kind {kind!r} is not ADMIN or RISK", owner=owner
        ) from None
    if kind is FreezeKind.BACKJOB:
        raise InvalidInput(
            f"freeze of owner {owner!r}: a BACKJOB freeze comes with a backjob request", owner=owner
        )
    enter_hour(connection, now=now)
    if reference is not None:
        lock_reference(connection, reference)
        found = _find(connection, reference=reference)
        if found:
            return _replay_opening(found, (owner, kind, by, reason, payee_text))
    open_id = fetch(connection, "owner_freeze/make_owner", owner=owner)[0]["owner_freeze_id"]
    if open_id is not None:
        open_freeze = _find(connection, owner_freeze_id=open_id)
        assert open_freeze is not None
        raise FreezeRefused(
            f"owner {owner!r}: frozen since {open_freeze['opened_at'].isoformat()}"
            f" by {open_freeze['opened_by']!r}; one freeze at a time",
            owner=owner,
            state="FROZEN",
            allowed=("unfreeze_owner",),
        )
    _lock_holds_and_wallets(connection, owner)
    rows = fetch(
        connection,
        "owner_freeze/freeze_owner",
        owner=owner,
        kind=kind,
        reference=reference,
        opened_by=by,
        reason=reason,
        payee_text=payee_text,
        now=now,
    )
    return OwnerFreeze(
        owner_freeze_id=rows[0]["owner_freeze_id"], owner=owner, frozen=True, holds=rows[0]["holds_frozen"]
    )


def unfreeze_owner(
    connection: AnyConnection,
    *,
    owner: str,
    by: str,
    reason: str,
    now: datetime,
    reference: str | None = None,
) -> OwnerFreeze:
    """Close an owner's freeze. A hold that no other freeze covers returns to the buffer, its date unchanged.

    `reference` is the idempotency key of the closing.

    Raises:
        InvalidInput: `now` is more than a minute before the owner, or the last hold, was frozen.
        FreezeRefused: the owner is not frozen.
        ReferenceConflict: the reference was used for another closing.
        BooksOutOfBalance: the owner's row names a freeze that is closed already; roll back.
    """
    require_time("now", now)
    require_text("owner", owner)
    require_text("by", by)
    require_reason(reason)
    enter_hour(connection, now=now)
    if reference is not None:
        lock_reference(connection, reference)
        found = _find(connection, closing_reference=reference)
        if found:
            return _replay_closing(found, owner=owner, by=by, reason=reason)
    locked = fetch(connection, "owner_freeze/lock_owner", owner=owner)
    open_id = locked[0]["owner_freeze_id"] if locked else None
    if open_id is None:
        raise FreezeRefused(f"owner {owner!r}: not frozen; only a frozen owner can be unfrozen", owner=owner)
    _lock_holds_and_wallets(connection, owner)
    # Read after the locks: the last hold may have come in just before them.
    open_freeze = _find(connection, owner_freeze_id=open_id)
    assert open_freeze is not None
    began = fetch(connection, "owner_freeze/latest_opening", owner_freeze_id=open_id)[0]["frozen_at"]
    began = max(open_freeze["opened_at"], began or open_freeze["opened_at"])
    now = require_not_before(now, began, what=f"owner {owner!r} or one of their holds was frozen")
    rows = fetch(
        connection,
        "owner_freeze/unfreeze_owner",
        owner_freeze_id=open_id,
        owner=owner,
        closing_reference=reference,
        closed_by=by,
        reason=reason,
        now=now,
    )
    if not rows:
        raise BooksOutOfBalance(
            f"owner {owner!r}: freeze {open_id} is named as open and is closed; roll back"
        )
    return OwnerFreeze(owner_freeze_id=open_id, owner=owner, frozen=False, holds=rows[0]["holds_resumed"])


class _HoldIsLocked(Exception):
    """Another transaction has locked a hold that was added after the holds were locked."""


def _lock_holds_and_wallets(connection: AnyConnection, owner: str) -> None:
    """Lock all holds that wait for the owner, then the owner's wallets, so that no hold is added any more.

    A hold may be added before the wallets are locked, and another verb may lock it and then wait for its
    wallet. To wait for that hold while the wallet is locked would be a deadlock. So both locks are given up,
    and all holds are locked again in their order.
    """
    while True:
        with suppress(_HoldIsLocked), savepoint(connection):
            fetch(connection, "owner_freeze/lock_holds_of_owner", owner=owner)
            fetch(connection, "owner_freeze/lock_wallets_of_owner", owner=owner)
            late = fetch(connection, "owner_freeze/lock_late_holds_of_owner", owner=owner)[0]
            if late["locked"] < late["holds"]:
                raise _HoldIsLocked
            return


def _find(
    connection: AnyConnection,
    *,
    owner_freeze_id: int | None = None,
    reference: str | None = None,
    closing_reference: str | None = None,
) -> Row | None:
    rows = fetch(
        connection,
        "owner_freeze/find_owner_freeze",
        owner_freeze_id=owner_freeze_id,
        reference=reference,
        closing_reference=closing_reference,
    )
    return rows[0] if rows else None


def _replay_opening(found: Row, asked: tuple[object, ...]) -> OwnerFreeze:
    names = ("owner", "kind", "opened_by", "reason", "payee_text")
    if tuple(found[name] for name in names) != asked:
        raise ReferenceConflict(
            f"reference {found['reference']!r}: already used for a freeze of owner {found['owner']!r},"
            f" {found['kind']} by {found['opened_by']!r}",
            reference=found["reference"],
            owner=found["owner"],
        )
    return OwnerFreeze(
        owner_freeze_id=found["owner_freeze_id"],
        owner=found["owner"],
        frozen=True,
        holds=found["holds_frozen"],
        replayed=True,
    )


def _replay_closing(found: Row, *, owner: str, by: str, reason: str) -> OwnerFreeze:
    if (found["owner"], found["closed_by"], found["closing_reason"]) != (owner, by, reason):
        raise ReferenceConflict(
            f"reference {found['closing_reference']!r}: already used for the unfreezing of owner"
            f" {found['owner']!r} by {found['closed_by']!r}",
            reference=found["closing_reference"],
            owner=found["owner"],
        )
    return OwnerFreeze(
        owner_freeze_id=found["owner_freeze_id"],
        owner=owner,
        frozen=False,
        holds=found["holds_resumed"],
        replayed=True,
    )
