"""Fill empty books with a small sample: four weeks of a simulated marketplace."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from buffer_pipeline.audit.reconcile import tables_in_use
from buffer_pipeline.hours import HOUR, RELEASE_TAKES, hour_of
from buffer_pipeline.monitoring.sent_alerts import AlertKind, record_sent_alert
from buffer_pipeline.notifications.outbox import dispatch
from buffer_pipeline.release import release_matured
from buffer_pipeline.release_run.batch_size import BATCH_LIMIT
from buffer_pipeline.simulation.marketplace import Marketplace

SEED: Final = 22
"""With this seed a sample ends with a hold under each kind of freeze, one of them stuck. Tests check it."""
SAMPLE_JOBS_A_DAY: Final = 8
LENGTH: Final = timedelta(days=28)
"""The first run of `hourly_release_counts` counts all hours of this length."""
DOWN: Final = timedelta(hours=30)
"""How long the hourly job has not run at the end of the sample, so that the first release has work to do."""


def load_sample(connection: Connection, *, now: datetime) -> None:
    """Fill empty books with four weeks of a marketplace, which end with the hour before `now`.

    Everything is in the caller's transaction. The content is the same each time, whatever `now` is.

    The hourly job has not run for DOWN. So the payments that came due since then are due, and the
    notifications of that time are not dispatched. Earlier notifications are dispatched to no endpoint.

    The overdue alert of this hour is recorded as sent, since the first release is about to take these
    payments; also the alert of the next hour, if it begins within RELEASE_TAKES.
    """
    assert not tables_in_use(connection), "a sample is for empty books"
    end = hour_of(now)
    market = Marketplace(start=end - LENGTH, seed=SEED, jobs_a_day=SAMPLE_JOBS_A_DAY)
    for number in range(LENGTH // HOUR):
        hour = end - LENGTH + number * HOUR
        market.play_hour(connection, hour=hour)
        next_hour = hour + HOUR
        if next_hour <= end - DOWN:
            release_matured(connection, now=next_hour, batch_limit=BATCH_LIMIT, source="sample")
            if next_hour == end - DOWN:
                dispatch(connection, [], batch_limit=10 * BATCH_LIMIT, now=next_hour)
    for period in sorted({hour_of(now), hour_of(now + RELEASE_TAKES)}):
        record_sent_alert(connection, kind=AlertKind.OVERDUE_RELEASE, period=period, now=now)
