"""Money leaves the buffer for its payee: on the hour, or early when the payer gives up the window."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

from buffer_pipeline.database import AnyConnection, Row, array_text, fetch
from buffer_pipeline.errors import (
    BooksOutOfBalance,
    InvalidInput,
    NotAllowed,
    NotFound,
    StateRefused,
)
from buffer_pipeline.hold import NEXT_STATE, HoldState, Verb, states_that_allow
from buffer_pipeline.hours import enter_hour, hour_of
from buffer_pipeline.inputs import ID_MAX, require_id, require_reason, require_text, require_time
from buffer_pipeline.locks import lock_holds, lock_wallets

LOCK_WAIT_SECONDS: Final = 0.05
"""Lock timeout of the fast path. After it, roll back and retry with SKIP LOCKED, because the holder may
keep the lock indefinitely. It is far below PostgreSQL's `deadlock_timeout` of a second, so of two
transactions that wait for each other the release is the one that gives up."""


@dataclass(frozen=True, kw_only=True)
class ReleasePosition:
    """Where a run stands in the order of release: behind this hold."""

    hour: datetime = datetime(1, 1, 2, tzinfo=UTC)
    wallet_id: int = 0
    hold_id: int = 0

    @classmethod
    def end(cls, due_by: datetime) -> "ReleasePosition":
        """Return the position behind all that is matured by `due_by`."""
        return cls(hour=hour_of(due_by), wallet_id=ID_MAX, hold_id=ID_MAX)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A share of the wallets: those with an id behind `after` and up to `through`. All, by default."""

    after: int = 0
    through: int = ID_MAX


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What lies behind one position and up to another, in the order of release, of a share of the wallets."""

    after: ReleasePosition
    through: ReleasePosition
    shard: Shard

    def parameters(self) -> dict[str, object]:
        """Return what a statement asks of a stretch."""
        return {
            "after_hour": self.after.hour,
            "after_wallet_id": self.after.wallet_id,
            "after_hold_id": self.after.hold_id,
            "through_hour": self.through.hour,
            "through_wallet_id": self.through.wallet_id,
            "through_hold_id": self.through.hold_id,
            "after_shard": self.shard.after,
            "through_shard": self.shard.through,
        }


@dataclass(frozen=True, kw_only=True)
class ReleaseBatch:
    """What one release settled. `amounts_minor` is minor units by currency."""

    holds_released: int = 0
    amounts_minor: dict[str, int] = field(default_factory=dict)
    batch_id: int | None = None
    position: ReleasePosition | None = None


def release_matured(
    connection: AnyConnection,
    *,
    now: datetime,
    batch_limit: int,
    due_by: datetime | None = None,
    after: ReleasePosition | None = None,
    through: ReleasePosition | None = None,
    source: str = "",
    shard: Shard | None = None,
) -> ReleaseBatch:
    """Release matured holds in the caller's transaction, the oldest release hour first.

    A hold is matured when its release date is at or before `due_by` (by default `now`, which
    is also the time that the books record). At most `batch_limit` holds, behind the position
    `after` and up to `through`; the batch's own `position` is where the next one goes on. With a
    `shard`, only holds of its payees' wallets: two releases of different shards never meet. It
    waits for nobody: holds that another transaction has locked are skipped, and so are those whose
    payee's wallet it has locked. Safe to run again and at the same time: a released hold no longer
    matches.

    Raises:
        InvalidInput: `due_by` lies after `now`, or that after the database's clock (its owner's may).
        BooksOutOfBalance: the credits differ from what was held; roll back.
    """
    require_time("now", now)
    if batch_limit < 1:
        raise InvalidInput(f"batch_limit {batch_limit}: must be at least 1")
    due_by = _require_past("due_by", due_by or now, now=now)
    stretch = Stretch(
        after=after or ReleasePosition(),
        through=through or ReleasePosition.end(due_by),
        shard=shard or Shard(),
    )
    enter_hour(connection, now=now, ahead_max=timedelta(0))
    found = fetch(connection, "lock_matured", due_by=due_by, batch_limit=batch_limit, **stretch.parameters())
    if not found:
        return ReleaseBatch()
    batch = _release(
        connection,
        kind="DUE",
        source=source or "unnamed",
        due_by=due_by,
        now=now,
        hold_ids=[row["hold_id"] for row in found],
    )
    if batch.holds_released != len(found):
        raise BooksOutOfBalance(
            f"release: {len(found)} holds were locked, {batch.holds_released} released; roll back"
        )
    return replace(batch, position=_position(found[-1]))


def release_stretch(
    connection: AnyConnection,
    *,
    stretch: Stretch,
    now: datetime,
    due_by: datetime,
    source: str,
) -> ReleaseBatch:
    """Release all of a stretch that is matured, in one visit to each hold.

    As `release_matured`, but however many there are, and without passing over what is locked: the
    statement gives up where somebody keeps a lock for longer than LOCK_WAIT_SECONDS, and the
    caller's transaction with it. Until that ends, all its statements do, and read by index.

    Raises:
        InvalidInput: `due_by` lies after `now`, or that after the database's clock (its owner's may).
        BooksOutOfBalance: the credits differ from what was held; roll back.
        DBAPIError, psycopg.errors.LockNotAvailable: somebody kept a lock; roll back.
    """
    require_time("now", now)
    _require_past("due_by", due_by, now=now)
    enter_hour(connection, now=now, ahead_max=timedelta(0))
    fetch(connection, "stretch_settings", wait_milliseconds=int(LOCK_WAIT_SECONDS * 1000))
    return _release(
        connection,
        kind="DUE",
        source=source,
        due_by=due_by,
        now=now,
        stretch=stretch,
    )


def milestones(
    connection: AnyConnection,
    *,
    due_by: datetime,
    after: ReleasePosition,
    every: int,
    milestones_max: int,
    shard: Shard,
    whole_hours: bool,
) -> list[ReleasePosition]:
    """Return the position of each `every`-th matured hold behind `after`, in the order of release.

    With `whole_hours` only of the hours that ended by `due_by`: what is matured of them the index says
    alone, where vacuum has been since the rows came in. Until the caller's transaction ends, all its
    statements read by index.
    """
    fetch(connection, "read_by_index")
    found = fetch(
        connection,
        "milestones",
        due_by=due_by,
        before_hour=hour_of(due_by) if whole_hours else None,
        every=every,
        milestones=milestones_max,
        after_hour=after.hour,
        after_wallet_id=after.wallet_id,
        after_hold_id=after.hold_id,
        after_shard=shard.after,
        through_shard=shard.through,
    )
    return [_position(row) for row in found]


def newest_hold(connection: AnyConnection) -> int:
    """Return the newest hold's id, 0 where there is none."""
    newest: int = fetch(connection, "newest_hold")[0]["hold_id"]
    return newest


def came_in_due(connection: AnyConnection, *, newest: int, due_by: datetime, shard: Shard) -> bool:
    """Return whether a hold that came in behind the `newest` there was is matured, in a shard.

    At a cost that follows what came in. Until the caller's transaction ends, all its statements read
    by index.
    """
    fetch(connection, "read_by_index")
    found: bool = fetch(
        connection,
        "came_in_due",
        newest=newest,
        due_by=due_by,
        after_shard=shard.after,
        through_shard=shard.through,
    )[0]["came_in"]
    return found


def part_wallets(connection: AnyConnection, *, due_by: datetime, shards: int) -> list[Shard]:
    """Part all wallets into shards with about as many due holds each; fewer where few wallets have any.

    A range of ids rather than a remainder, since the index of what is due tells it without the row.
    """
    fractions = [number / shards for number in range(1, shards)]
    wallet_ids = fetch(connection, "part_wallets", due_by=due_by, fractions=fractions)[0]["wallet_ids"]
    bounds = [0, *sorted(set(wallet_ids or ())), ID_MAX]
    return [Shard(after=after, through=through) for after, through in pairwise(bounds)]


def release_early(
    connection: AnyConnection,
    *,
    by: str,
    reason: str,
    now: datetime,
    hold_id: int | None = None,
    job: str | None = None,
    as_admin: bool = False,
) -> ReleaseBatch:
    """Release one hold, or all of a job's unsettled holds, before the release date.

    Only the payer may, who gives up the right to a backjob by it, or an admin.
    All or nothing: one hold that refuses keeps the others where they are.

    Raises:
        NotFound: no such hold, or no hold of such a job.
        NotAllowed: `by` is not the payer, and not an admin.
        StateRefused: a hold is frozen or settled.
    """
    require_time("now", now)
    require_text("by", by)
    require_reason(reason)
    if (hold_id is None) == (job is None):
        raise InvalidInput("release early: needs a hold or a job, one of them")
    if hold_id is not None:
        require_id("hold", hold_id)
    else:
        require_text("job", job or "")
    enter_hour(connection, now=now)
    holds = lock_holds(connection, hold_ids=[] if hold_id is None else [hold_id], job=job)
    if not holds:
        raise NotFound(
            f"hold {hold_id}: does not exist" if job is None else f"job {job!r}: has no hold",
            hold_id=hold_id,
            job=job,
        )
    if job is not None and any(hold["state"] == HoldState.BUFFERED for hold in holds):
        # Of a job, what is settled already is no obstacle to the rest.
        holds = [hold for hold in holds if hold["state"] in (HoldState.BUFFERED, HoldState.FROZEN)]
    for hold in holds:
        if (HoldState(hold["state"]), Verb.RELEASE_EARLY) not in NEXT_STATE:
            raise StateRefused(
                hold_id=hold["hold_id"],
                state=hold["state"],
                verb=Verb.RELEASE_EARLY,
                allowed=states_that_allow(Verb.RELEASE_EARLY),
            )
        if not as_admin and hold["payer"] != by:
            raise NotAllowed(
                f"hold {hold['hold_id']}: {by!r} may not release it early;"
                f" its payer {hold['payer']!r} or an admin may",
                hold_id=hold["hold_id"],
                job=hold["job"],
            )
    lock_wallets(connection, (hold["payee_wallet_id"] for hold in holds))
    batch = _release(
        connection,
        kind="EARLY",
        source=by,
        reason=reason,
        now=now,
        hold_ids=[hold["hold_id"] for hold in holds],
    )
    if batch.holds_released != len(holds):
        raise BooksOutOfBalance(
            f"release: {len(holds)} holds were locked, {batch.holds_released} released; roll back"
        )
    return batch


_NOWHERE: Final = Stretch(after=ReleasePosition(), through=ReleasePosition(), shard=Shard())


def _release(
    connection: AnyConnection,
    *,
    kind: str,
    source: str,
    now: datetime,
    due_by: datetime | None = None,
    reason: str | None = None,
    hold_ids: Sequence[int] | None = None,
    stretch: Stretch | None = None,
) -> ReleaseBatch:
    rows = fetch(
        connection,
        "release_holds",
        hold_ids=None if hold_ids is None else array_text(hold_ids),
        kind=kind,
        source=source,
        reason=reason,
        due_by=due_by,
        now=now,
        **(stretch or _NOWHERE).parameters(),
    )
    one = rows[0]
    left = (one["holds_left"], one["left_minor"])
    credited = (sum(row["holds_credited"] for row in rows), sum(row["credited_minor"] for row in rows))
    lines = (one["lines"], one["lines_minor"])
    if not left == credited == lines:
        raise BooksOutOfBalance(
            f"batch {one['batch_id']}: {left[0]} holds of {left[1]} minor units left the buffer,"
            f" {credited[0]} of {credited[1]} were credited, {lines[0]} of {lines[1]} written; roll back"
        )
    return ReleaseBatch(
        holds_released=credited[0],
        amounts_minor={row["currency"]: int(row["credited_minor"]) for row in rows if row["holds_credited"]},
        batch_id=one["batch_id"],
    )


def _require_past(name: str, moment: datetime, *, now: datetime) -> datetime:
    moment = require_time(name, moment)
    if moment > now:
        # Otherwise the batch would record a cut-off later than the release.
        raise InvalidInput(f"{name} {moment.isoformat()}: lies after now, {now.isoformat()}")
    return moment


def _position(row: Row) -> ReleasePosition:
    return ReleasePosition(hour=row["release_hour"], wallet_id=row["payee_wallet_id"], hold_id=row["hold_id"])
