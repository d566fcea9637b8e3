"""Notifications on their way: written as deliveries, claimed under a lease, settled once they are through.

A notification is written with the money that caused it. `dispatch` makes of it one delivery for each
endpoint that takes its type. Whoever sends claims deliveries in one short transaction, sends outside of
any, and settles in another; what is claimed and never settled is claimed again when its lease is over.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.texts import of_others

REASON_LENGTH_MAX = 1_000


@dataclass(frozen=True, kw_only=True)
class Notification:
    """A message owed to an owner. `notification_id` is stable: a receiver dedupes on it."""

    notification_id: int
    type: str
    owner: str
    to_payer: bool
    """Whether the owner is the one who paid: some types tell payer and payee, in other words."""
    hold_id: int | None
    backjob_id: int | None
    job: str
    title: str | None
    currency: str | None
    amount_minor: int | None
    places: int | None
    """Of the currency's minor unit, by the books; None without an amount."""
    release_date: datetime | None
    created_at: datetime


class DeliveryState(StrEnum):
    """Where a delivery is. DEAD ones were given up; `replay` brings them back."""

    WAITING = "WAITING"
    DELIVERED = "DELIVERED"
    DEAD = "DEAD"


class Outcome(StrEnum):
    """What became of a claimed delivery. UNSENT ones were not tried, and count as never claimed."""

    DELIVERED = "DELIVERED"
    RETRY = "RETRY"
    DEAD = "DEAD"
    UNSENT = "UNSENT"


@dataclass(frozen=True, kw_only=True)
class Route:
    """Which notifications an endpoint takes: those of its types, None for all."""

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
    """A delivery that nobody else sends until its lease is over. `attempts` were made before this one."""

    delivery_id: int
    lease: uuid.UUID
    attempts: int
    first_attempt_at: datetime | None
    notification: Notification


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """The outcome of a claimed delivery; a RETRY says when and why, a DEAD one why."""

    claimed: Claimed
    outcome: Outcome
    reason: str | None = None
    next_attempt_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A delivery as it stands."""

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
    """An endpoint is left alone until then, as its receiver did not answer; then a probe decides."""

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
    """What is not through at an endpoint; at the endpoint None, what is not dispatched yet."""

    endpoint: str | None
    waiting: int
    dead: int
    oldest_waiting: datetime | None


@dataclass(frozen=True, kw_only=True)
class ToSend:
    """Whether a notification is not dispatched yet, and whether a delivery has come due."""

    new: bool
    due: bool


def dispatch(
    connection: AnyConnection, routes: Sequence[Route], *, batch_limit: int, now: datetime
) -> Dispatched:
    """Write the deliveries of the oldest notifications that have none yet, in the caller's transaction.

    Safe to run again, and at once: one waits for the other to end its transaction. Zero notifications
    mean that all are dispatched.
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
    """Lease what is due at an endpoint: whole lanes, by owner, each in the order in which it is to be sent.

    A lane is what waits for one owner. It is claimed from its first delivery on, while nothing of it is
    leased, or not at all, so two claims never hold one owner's deliveries at the same time. `after_owner`
    goes through the owners in turn; an answer of none at "" means that nothing is due,
    or that the endpoint is left alone: as long as its pause stands, claims are to `probe` it.
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
        # All of them were leased since, or later ones of theirs are; others may stand behind them.
        after_owner = lanes[-1]["owner"]


def _claimed(row: dict[str, object], lease: uuid.UUID) -> Claimed:
    delivery_id, attempts = row.pop("delivery_id"), row.pop("attempts")
    first_attempt_at = row.pop("first_attempt_at")
    return Claimed(
        delivery_id=delivery_id,  # type: ignore[arg-type]
        lease=lease,
        attempts=attempts,  # type: ignore[arg-type]
        first_attempt_at=first_attempt_at,  # type: ignore[arg-type]
        notification=Notification(**row),  # type: ignore[arg-type]
    )


def settle(connection: AnyConnection, settlements: Sequence[Settlement], *, now: datetime) -> set[int]:
    """Write what became of claimed deliveries and return of which: their delivery ids.

    Those whose lease is no longer theirs are left as they are: another drainer has them. So a second call
    with the same settlements writes nothing.
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
    """Have every drainer leave an endpoint alone until then; a pause that ends later stands."""
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
    """Return which of these endpoints are left alone, or wait for their probe."""
    return [Pause(**row) for row in fetch(connection, "outbox/find_pauses", endpoints=list(endpoints))]


def _storable(reason: str) -> str:
    """Return what a receiver or a library said, as PostgreSQL can store it and a terminal may show it."""
    return of_others(reason)[:REASON_LENGTH_MAX] or "no reason given"


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
    """Let dead letters wait again as if never tried, the oldest first; return their delivery ids.

    By id, by when they were given up (`since` included, `until` not), by endpoint; all of them when
    nothing is said. Safe to run again: what waits is not dead. Fewer than `batch_limit` mean no more.
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
    """Return deliveries, the newest first; `before_id` is the last one of the page before."""
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
    """Return what there is to send now, of it what goes to one of these endpoints."""
    return ToSend(**fetch(connection, "outbox/find_due", endpoints=list(endpoints), now=now)[0])


def delivery_figures(connection: AnyConnection) -> list[Figures]:
    """Return what waits and what is dead, by endpoint; endpoints with neither are not in it."""
    return [Figures(**row) for row in fetch(connection, "outbox/count_deliveries")]
