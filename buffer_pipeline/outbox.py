"""Notifications that wait to be delivered: claimed, and marked once they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from buffer_pipeline.database import AnyConnection, fetch


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
    release_date: datetime | None
    created_at: datetime


def claim_notifications(
    connection: AnyConnection, *, batch_limit: int, after_id: int = 0
) -> list[Notification]:
    """Lock the oldest waiting notifications behind `after_id` for the caller's transaction.

    Those that another transaction has claimed are passed over.
    """
    rows = fetch(connection, "claim_notifications", batch_limit=batch_limit, after_id=after_id)
    return [Notification(**row) for row in rows]


def mark_delivered(connection: AnyConnection, notification_ids: Sequence[int], *, now: datetime) -> int:
    """Mark claimed notifications as delivered and return how many were."""
    rows = fetch(connection, "mark_delivered", notification_ids=list(notification_ids), now=now)
    return len(rows)


def notifications_waiting(connection: AnyConnection) -> int:
    """Return how many notifications wait."""
    return int(fetch(connection, "count_waiting_notifications")[0]["waiting"])
