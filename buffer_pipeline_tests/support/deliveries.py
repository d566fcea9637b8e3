"""Notifications that are dispatched, claimed and settled by hand."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select

from buffer_pipeline.notifications.outbox import (
    Claimed,
    Dispatched,
    Outcome,
    Route,
    Settlement,
    claim,
    dispatch,
)
from buffer_pipeline.tables import delivery, notification
from buffer_pipeline_tests.support.builders import NOON, place_hold

BACKEND: Final = Route(name="backend")
LEASE: Final = 60.0


def add_notifications(connection: Connection, *owners: str, created_at: datetime = NOON) -> list[int]:
    """Write a PAYMENT_PENDING for each owner in turn; return the ids."""
    before = connection.scalar(
        select(notification.c.notification_id).order_by(notification.c.notification_id.desc())
    )
    for owner in owners:
        place_hold(connection, payee=owner, held_at=created_at)
    return list(
        connection.scalars(
            select(notification.c.notification_id)
            .where(notification.c.notification_id > (before or 0))
            .order_by(notification.c.notification_id)
        )
    )


def dispatch_all(connection: Connection, *routes: Route, now: datetime = NOON) -> Dispatched:
    """Dispatch to the routes; by default to the backend."""
    return dispatch(connection, routes or (BACKEND,), batch_limit=1_000, now=now)


def claim_from(
    connection: Connection,
    *,
    now: datetime = NOON,
    owners: int = 100,
    each: int = 100,
    after_owner: str = "",
    endpoint: str = "backend",
) -> list[Claimed]:
    """Claim at an endpoint."""
    return claim(
        connection,
        endpoint=endpoint,
        owners_limit=owners,
        per_owner_limit=each,
        lease_seconds=LEASE,
        now=now,
        after_owner=after_owner,
    )


def ids_of(claimed: Sequence[Claimed]) -> list[int]:
    """Return the ids of the claimed deliveries."""
    return [each.notification.notification_id for each in claimed]


def all_as(
    claimed: Sequence[Claimed],
    outcome: Outcome,
    *,
    reason: str | None = None,
    next_attempt_at: datetime | None = None,
) -> list[Settlement]:
    """Return the same outcome for each delivery."""
    return [
        Settlement(claimed=each, outcome=outcome, reason=reason, next_attempt_at=next_attempt_at)
        for each in claimed
    ]


def rows(connection: Connection) -> list[dict[str, Any]]:
    """Return all deliveries, oldest first."""
    return [
        dict(row) for row in connection.execute(select(delivery).order_by(delivery.c.delivery_id)).mappings()
    ]
