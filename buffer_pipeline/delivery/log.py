"""The `log` channel: a line a notification, on the logger `buffer_pipeline.notifications`."""

import logging
from typing import Final

from buffer_pipeline.money import format_amount
from buffer_pipeline.outbox import Notification

logger: Final = logging.getLogger("buffer_pipeline.notifications")


def deliver_to_log(notification: Notification) -> None:
    """Write one line that says who is told what about which hold."""
    facts = [f"job {notification.job}"]
    if notification.hold_id is not None:
        facts.insert(0, f"hold {notification.hold_id}")
    if notification.backjob_id is not None:
        facts.append(f"backjob {notification.backjob_id}")
    if notification.amount_minor is not None and notification.currency is not None:
        facts.append(
            f"{format_amount(notification.amount_minor, notification.currency)} {notification.currency}"
        )
    if notification.release_date is not None:
        facts.append(f"release date {notification.release_date.isoformat()}")
    if notification.title:
        facts.append(repr(notification.title))
    logger.info(
        "notification %d %s to %s: %s",
        notification.notification_id,
        notification.type,
        notification.owner,
        ", ".join(facts),
    )
