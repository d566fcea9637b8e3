"""Everything that waits, delivered batch by batch."""

from collections.abc import Callable
from typing import Final

from sqlalchemy import Engine

from buffer_pipeline.database import database_clock
from buffer_pipeline.outbox import Notification, claim_notifications, mark_delivered

BATCH_LIMIT: Final = 1_000


def drain_notifications(
    engine: Engine, deliver: Callable[[Notification], None], *, batch_limit: int = BATCH_LIMIT
) -> int:
    """Deliver what waits, the oldest first, and return how many were delivered.

    At least once: a batch that is cut short between delivery and commit is delivered again,
    with the same ids. Two drainers never hold the same notification at the same time.
    `deliver` must not touch the network: it is called inside the claiming transaction.
    """
    delivered = 0
    after_id = 0
    while True:
        with engine.begin() as connection:
            claimed = claim_notifications(connection, batch_limit=batch_limit, after_id=after_id)
            if not claimed:
                return delivered
            for notification in claimed:
                deliver(notification)
            ids = [notification.notification_id for notification in claimed]
            mark_delivered(connection, ids, now=database_clock(connection))
        delivered += len(claimed)
        after_id = ids[-1]
