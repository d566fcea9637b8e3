"""The outbox: notifications become deliveries, which are claimed under a lease, sent and settled.

A notification is written with the money that caused it. `dispatch` writes one delivery of it for each
endpoint that takes its type. A drain claims deliveries in one short transaction, sends them outside any
transaction, and settles them in another one. A delivery that was claimed and not settled can be claimed
again when its lease has ended.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.hold_metadata import read_metadata
from buffer_pipeline.notifications.notification import Notification, read_shares
from buffer_pipeline.notifications.sanitize import of_others

DELIVERY_REASON_LENGTH_MAX = 1_000


class DeliveryState(StrEnum):
    """The state of a delivery. DEAD ones were given up; `replay` makes them WAITING again."""

    WAITING = "WAITING"
    DELIVERED = "DELIVERED"
    DEAD = "DEAD"


class Outcome(StrEnum):
    """The outcome of a claimed delivery. UNSENT ones were not tried, and count as never claimed."""

    DELIVERED = "DELIVERED"
    RETRY = "RETRY"
    DEAD = "DEAD"
    UNSENT = "UNSENT"


@dataclass(frozen=True, kw_only=True)
class Route:
    """Which notifications an endpoint takes: those of its `types`, None for all.

    With `needs_address`, only those of owners with a mail address.
    """

    name: str
    types: frozenset[str] | None = None
    needs_address: bool = False


@dataclass(frozen=True, kw_only=True)
class Dispatched:
    """What one `dispatch` wrote."""

    notifications: int
    deliveries: int


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A delivery that no other drain sends until its lease ends. `attempts` were made before this one."""

    delivery_id: int
    lease: uuid.UUID
    attempts: int
    first_attempt_at: datetime | None
    notification: Notification


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """The outcome of a claimed delivery: RETRY with a time and a reason, DEAD with a reason."""

    claimed: Claimed
    outcome: Outcome
    reason: str | None = None
    next_attempt_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A delivery and its current state."""

    delivery_id: int
    notification_id: int
    type: str
    endpoint: str
    owner: str
    state: DeliveryState
    attempts: int
    created_at: datetime
    next_attempt_at: datetime
    first_attempt_at: datetime | None
    leased_until: datetime | None
    settled_at: datetime | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Nothing is sent to an endpoint until `open_until`, as its receiver did not answer. A probe follows."""

    endpoint: str
    open_until: datetime
    reason: str


@dataclass(frozen=True, kw_only=True)
class Undispatched:
    """A notification that has no deliveries yet; the next drain dispatches it."""

    notification_id: int
    type: str
    owner: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Deliveries of an endpoint that wait or are dead. `endpoint` None: notifications not dispatched yet."""

    endpoint: str | None
    waiting: int
    dead: int
    oldest_waiting: datetime | None


@dataclass(frozen=True, kw_only=True)
class ToSend:
    """Whether a notification is not dispatched yet (`new`), and whether a delivery is due."""

    new: bool
    due: bool


def dispatch(
    connection: AnyConnection, routes: Sequence[Route], *, batch_limit: int, now: datetime
) -> Dispatched:
    """Write the deliveries of the oldest notifications that have none yet, in the caller's transaction.

    Safe to run again. Of two concurrent calls, one waits for the other's transaction. Zero notifications
    in the result mean that all are dispatched.
    """
    fetch(connection, "outbox/lock_dispatch")
    row = fetch(
        connection,
        "outbox/dispatch_notifications",
        endpoints=[route.name for route in routes],
        types=[None if route.types is None else ",".join(sorted(route.types)) for route in routes],
        needs_address=[route.needs_address for route in routes],
        batch_limit=batch_limit,
        now=now,
    )[0]
    return Dispatched(**row)


def claim(
    connection: AnyConnection,
    *,
    endpoint: str,
    owners_limit: int,
    per_owner_limit: int,
    lease_seconds: float,
    now: datetime,
    after_owner: str = "",
    probe: bool = False,
) -> list[Claimed]:
    """Lease what is due at an endpoint, by owner, and for each owner in the order of sending.

    A lane is the deliveries that wait for one owner at an endpoint. It is claimed from its first delivery on,
    and only while none of it is leased. So two claims never hold deliveries of one owner at the same time.

    Claims go through the owners in order: pass the last owner of one claim as `after_owner` of the next. An
    empty result for `after_owner` "" means that nothing is due or that the endpoint is paused. While the
    books have a pause of it, only a `probe` claims anything.
    """
    lease = uuid.uuid4()
    while True:
        lanes = fetch(
            connection,
            "outbox/lock_lanes",
            endpoint=endpoint,
            after_owner=after_owner,
            owners_limit=owners_limit,
            probe=probe,
            now=now,
        )
        if not lanes:
            return []
        rows = fetch(
            connection,
            "outbox/claim_deliveries",
            endpoint=endpoint,
            owners=[lane["owner"] for lane in lanes],
            per_owner_limit=per_owner_limit,
            lease=lease,
            lease_seconds=lease_seconds,
            now=now,
        )
        if rows:
            return [_claimed(dict(row), lease) for row in rows]
        # Meanwhile another claim leased all of these lanes, or later deliveries of theirs. Later owners may
        # still have lanes.
        after_owner = lanes[-1]["owner"]


def _claimed(row: dict[str, object], lease: uuid.UUID) -> Claimed:
    delivery_id, attempts = row.pop("delivery_id"), row.pop("attempts")
    first_attempt_at, metadata = row.pop("first_attempt_at"), row.pop("metadata")
    shares = row.pop("shares")
    return Claimed(
        delivery_id=delivery_id,  # type: ignore[arg-type]
        lease=lease,
        attempts=attempts,  # type: ignore[arg-type]
        first_attempt_at=first_attempt_at,  # type: ignore[arg-type]
        notification=Notification(
            **row,  # type: ignore[arg-type]
            metadata=read_metadata(metadata),
            shares=read_shares(shares),
        ),
    )


def settle(connection: AnyConnection, settlements: Sequence[Settlement], *, now: datetime) -> set[int]:
    """Write the outcomes of claimed deliveries; return the delivery ids that were written.

    A delivery that has another lease by now is left as it is, because another drain has it. So a second
    call with the same settlements writes nothing.
    """
    rows = fetch(
        connection,
        "outbox/settle_deliveries",
        delivery_ids=[settlement.claimed.delivery_id for settlement in settlements],
        leases=[settlement.claimed.lease for settlement in settlements],
        outcomes=[settlement.outcome.value for settlement in settlements],
        reasons=[settlement.reason and _storable(settlement.reason) for settlement in settlements],
        next_attempts_at=[settlement.next_attempt_at for settlement in settlements],
        now=now,
    )
    return {row["delivery_id"] for row in rows}


def pause(connection: AnyConnection, endpoint: str, *, open_until: datetime, reason: str) -> None:
    """Pause an endpoint for every drain until `open_until`; a pause that ends later is kept."""
    fetch(
        connection,
        "outbox/pause_endpoint",
        endpoint=endpoint,
        open_until=open_until,
        reason=_storable(reason),
    )


def resume(connection: AnyConnection, endpoint: str) -> None:
    """End an endpoint's pause. Safe to run again."""
    fetch(connection, "outbox/resume_endpoint", endpoint=endpoint)


def find_pauses(connection: AnyConnection, endpoints: Sequence[str]) -> list[Pause]:
    """Return the pauses of these endpoints, also those that are over and wait for a probe."""
    return [Pause(**row) for row in fetch(connection, "outbox/find_pauses", endpoints=list(endpoints))]


def _storable(reason: str) -> str:
    """Return a receiver's or library's text so that PostgreSQL can store it and a terminal can show it."""
    return of_others(reason)[:DELIVERY_REASON_LENGTH_MAX] or "no reason given"


def replay(
    connection: AnyConnection,
    *,
    now: datetime,
    ids: Sequence[int] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    endpoint: str | None = None,
    batch_limit: int,
) -> list[int]:
    """Make dead letters wait again as if never tried, the oldest first; return their delivery ids.

    They are selected by id, by when they were given up (from `since` to before `until`) and by endpoint;
    without any of these, all are. Safe to run again: a delivery that waits is not dead. A result of fewer
    than `batch_limit` ids means that no more are left.
    """
    rows = fetch(
        connection,
        "outbox/replay_deliveries",
        delivery_ids=None if ids is None else list(ids),
        since=since,
        until=until,
        endpoint=endpoint,
        batch_limit=batch_limit,
        now=now,
    )
    return sorted(row["delivery_id"] for row in rows)


def list_deliveries(
    connection: AnyConnection,
    *,
    state: DeliveryState | None = None,
    owner: str | None = None,
    type_: str | None = None,
    endpoint: str | None = None,
    before_id: int | None = None,
    limit: int = 100,
) -> list[Delivery]:
    """Return deliveries, the newest first. For the next page, pass the last id as `before_id`."""
    rows = fetch(
        connection,
        "outbox/list_deliveries",
        state=None if state is None else state.value,
        owner=owner,
        type=type_,
        endpoint=endpoint,
        before_id=before_id,
        page_limit=limit,
    )
    return [Delivery(**{**row, "state": DeliveryState(row["state"])}) for row in rows]


def list_undispatched(
    connection: AnyConnection, *, owner: str | None = None, type_: str | None = None, limit: int = 100
) -> list[Undispatched]:
    """Return notifications that have no deliveries yet, the newest first."""
    rows = fetch(connection, "outbox/list_undispatched", owner=owner, type=type_, page_limit=limit)
    return [Undispatched(**row) for row in rows]


def to_send(connection: AnyConnection, *, endpoints: Sequence[str], now: datetime) -> ToSend:
    """Return whether a notification is not dispatched, and whether a delivery to these endpoints is due."""
    return ToSend(**fetch(connection, "outbox/find_due", endpoints=list(endpoints), now=now)[0])


def delivery_figures(connection: AnyConnection) -> list[Figures]:
    """Return how many deliveries wait and are dead, by endpoint; an endpoint with neither is left out."""
    return [Figures(**row) for row in fetch(connection, "outbox/count_deliveries")]
