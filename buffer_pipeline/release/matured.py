"""Release holds that are due."""

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from buffer_pipeline.database import AnyConnection, Row, fetch
from buffer_pipeline.errors import BooksOutOfBalance, InvalidInput
from buffer_pipeline.hours import enter_hour, hour_of
from buffer_pipeline.inputs import ID_MAX, require_time
from buffer_pipeline.recovery import skip_locked_creditors
from buffer_pipeline.release.batch import ReleaseBatch, ReleasePosition, ReleaseRange, Shard, release_holds

LOCK_WAIT_SECONDS: Final = 0.05
"""Lock timeout of the fast path. After it, roll back and retry with SKIP LOCKED, because the holder may
keep the lock indefinitely. It is far below PostgreSQL's `deadlock_timeout` of a second, so of two
transactions that wait for each other the release is the one that gives up."""


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

    A hold is matured when its release date is at or before `due_by`, by default `now`. The books
    record `now` as the time of the release. At most `batch_limit` holds after the position `after`
    and up to `through` are released; the next batch begins at the returned `position`. With a `shard`,
    only holds of its wallets are released, so two releases of different shards never wait for each
    other. Never waits for a lock: a hold is skipped if another transaction has locked it, its payee's wallet,
    or the wallet of somebody to whom the payee owes something. What is released pays the payee's debts
    first. Safe to run again and at the same time: a released hold no longer matches.

    Raises:
        InvalidInput: `due_by` is after `now`, or `now` is after the database's clock (the books' owner
            may do the latter).
        BooksOutOfBalance: the credits differ from what was held; roll back.
    """
    require_time("now", now)
    if batch_limit < 1:
        raise InvalidInput(f"batch_limit {batch_limit}: must be at least 1")
    due_by = _require_past("due_by", due_by or now, now=now)
    hold_range = ReleaseRange(
        after=after or ReleasePosition(),
        through=through or ReleasePosition.end(due_by),
        shard=shard or Shard(),
    )
    enter_hour(connection, now=now, ahead_max=timedelta(0))
    found = fetch(
        connection, "release/lock_matured", due_by=due_by, batch_limit=batch_limit, **hold_range.parameters()
    )
    if not found:
        return ReleaseBatch()
    debtors = {row["payee_wallet_id"] for row in found if row["owes"]}
    skipped = skip_locked_creditors(connection, debtors) if debtors else set()
    hold_ids = [row["hold_id"] for row in found if row["payee_wallet_id"] not in skipped]
    if not hold_ids:
        return ReleaseBatch(position=_position(found[-1]))
    batch = release_holds(
        connection,
        kind="DUE",
        source=source or "unnamed",
        due_by=due_by,
        now=now,
        hold_ids=hold_ids,
    )
    if batch.holds_released != len(hold_ids):
        raise BooksOutOfBalance(
            f"release: {len(hold_ids)} holds were locked, {batch.holds_released} released; roll back"
        )
    return replace(batch, position=_position(found[-1]))


def release_range(
    connection: AnyConnection,
    *,
    hold_range: ReleaseRange,
    now: datetime,
    due_by: datetime,
    source: str,
) -> ReleaseBatch:
    """Release all matured holds of a range, and visit each of them once.

    Unlike `release_matured` it has no limit and skips no locked hold. It fails, and the caller's
    transaction with it, if another transaction keeps a lock for longer than LOCK_WAIT_SECONDS. Until the
    caller's transaction ends, all its statements have this lock timeout and read by index.

    Raises:
        InvalidInput: `due_by` is after `now`, or `now` is after the database's clock (the books' owner
            may do the latter).
        BooksOutOfBalance: the credits differ from what was held; roll back.
        DBAPIError, psycopg.errors.LockNotAvailable: another transaction kept a lock; roll back.
    """
    require_time("now", now)
    _require_past("due_by", due_by, now=now)
    enter_hour(connection, now=now, ahead_max=timedelta(0))
    fetch(connection, "release/range_settings", wait_milliseconds=int(LOCK_WAIT_SECONDS * 1000))
    return release_holds(
        connection,
        kind="DUE",
        source=source,
        due_by=due_by,
        now=now,
        hold_range=hold_range,
    )


def boundaries(
    connection: AnyConnection,
    *,
    due_by: datetime,
    after: ReleasePosition,
    every: int,
    boundaries_max: int,
    shard: Shard,
    whole_hours: bool,
) -> list[ReleasePosition]:
    """Return the position of every `every`-th matured hold after `after`, in the order of release.

    With `whole_hours`, only hours that ended by `due_by` are read. All their holds are matured, so the
    index alone answers (an index-only scan, if vacuum came after the rows were added). Until the caller's
    transaction ends, all its statements read by index.
    """
    fetch(connection, "database/read_by_index")
    found = fetch(
        connection,
        "release/boundaries",
        due_by=due_by,
        before_hour=hour_of(due_by) if whole_hours else None,
        every=every,
        boundaries=boundaries_max,
        after_hour=after.hour,
        after_wallet_id=after.wallet_id,
        after_hold_id=after.hold_id,
        after_shard=shard.after,
        through_shard=shard.through,
    )
    return [_position(row) for row in found]


def newest_hold(connection: AnyConnection) -> int:
    """Return the id of the newest hold, 0 if there is none."""
    newest: int = fetch(connection, "release/newest_hold")[0]["hold_id"]
    return newest


def came_in_due(connection: AnyConnection, *, newest: int, due_by: datetime, shard: Shard) -> bool:
    """Return True if a hold of the shard that was added after the hold `newest` is matured.

    The cost is proportional to the number of holds that were added. Until the caller's transaction ends,
    all its statements read by index.
    """
    fetch(connection, "database/read_by_index")
    found: bool = fetch(
        connection,
        "release/came_in_due",
        newest=newest,
        due_by=due_by,
        after_shard=shard.after,
        through_shard=shard.through,
    )[0]["came_in"]
    return found


def part_wallets(connection: AnyConnection, *, due_by: datetime, shards: int) -> list[Shard]:
    """Divide the wallets into shards with about as many due holds each; fewer if few wallets have any.

    A shard is a range of wallet ids and not a remainder, because the index of due holds can use a range.
    """
    fractions = [number / shards for number in range(1, shards)]
    wallet_ids = fetch(connection, "release/part_wallets", due_by=due_by, fractions=fractions)[0][
        "wallet_ids"
    ]
    bounds = [0, *sorted(set(wallet_ids or ())), ID_MAX]
    return [Shard(after=after, through=through) for after, through in pairwise(bounds)]


def _require_past(name: str, moment: datetime, *, now: datetime) -> datetime:
    moment = require_time(name, moment)
    if moment > now:
        # The books record both: the cut-off of a batch is never after its release.
        raise InvalidInput(f"{name} {moment.isoformat()}: lies after now, {now.isoformat()}")
    return moment


def _position(row: Row) -> ReleasePosition:
    return ReleasePosition(hour=row["release_hour"], wallet_id=row["payee_wallet_id"], hold_id=row["hold_id"])
