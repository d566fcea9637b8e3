"""A small sample of a marketplace's weeks, so that empty books have something to look at."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from buffer_pipeline.alerts import AlertKind, record_told
from buffer_pipeline.batch_size import BATCH_LIMIT
from buffer_pipeline.hours import HOUR, RELEASE_TAKES, hour_of
from buffer_pipeline.marketplace import Marketplace
from buffer_pipeline.outbox import dispatch
from buffer_pipeline.reconcile import tables_in_use
from buffer_pipeline.release import release_matured

SEED: Final = 22
"""Of a marketplace that ends with a hold under each kind of freeze, one of them stuck. Tests say so."""
JOBS_A_DAY: Final = 8
LENGTH: Final = timedelta(days=28)
"""The first run of `hourly_release_counts` counts all its hours."""
DOWN: Final = timedelta(hours=30)
"""How long the hourly job has not run, so that there is something for the first release."""


def load_sample(connection: Connection, *, now: datetime) -> None:
    """Fill empty books with four weeks of a marketplace, which end with the hour before `now`.

    In the caller's transaction, so that it is there whole or not at all. The hourly job has not run for
    DOWN: what has become due since is due, and nobody has been told of what was done since. Whoever
    was owed a notification before counts as told. That its own payments are overdue counts as told to
    operators for this hour, and for the next when it is near: the first release is about to take them. The
    same content each time, however the clock stands.
    """
    assert not tables_in_use(connection), "a sample is for empty books"
    end = hour_of(now)
    market = Marketplace(start=end - LENGTH, seed=SEED, jobs_a_day=JOBS_A_DAY)
    for number in range(LENGTH // HOUR):
        hour = end - LENGTH + number * HOUR
        market.play_hour(connection, hour=hour)
        over = hour + HOUR
        if over <= end - DOWN:
            release_matured(connection, now=over, batch_limit=BATCH_LIMIT, source="sample")
            if over == end - DOWN:
                dispatch(connection, [], batch_limit=10 * BATCH_LIMIT, now=over)
    for period in sorted({hour_of(now), hour_of(now + RELEASE_TAKES)}):
        record_told(connection, kind=AlertKind.OVERDUE_RELEASE, period=period, now=now)
