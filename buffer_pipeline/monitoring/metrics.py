"""Metrics for Prometheus, read from the books at each scrape. No process keeps counters of its own.

A scrape is one read-only transaction. It reads the holds in the buffer; what is open (freezes, debts,
payouts, deliveries, dead letters), by their indexes; the hourly counts, one row per hour and currency; the
status files of payouts; and the transactions of the hours that are not counted yet and of the last two hours.
Of these, only the counts and the status files grow with the history.
Amounts are minor units.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import accumulate
from threading import Lock
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.audit.reconcile import INVARIANTS
from buffer_pipeline.audit.seals import HISTORY_AS_SEALED
from buffer_pipeline.database import database_clock, fetch, first_line, snapshot
from buffer_pipeline.hold import UNSETTLED
from buffer_pipeline.hours import HOUR, hour_of, overdue_by
from buffer_pipeline.monitoring.payout_metrics import debt_metrics, payout_metrics
from buffer_pipeline.notifications.outbox import delivery_figures
from buffer_pipeline.policy import Policy
from buffer_pipeline.reports.stuck import count_stuck
from buffer_pipeline.shares import ShareKind

STATEMENT_SECONDS_MAX: Final = 8
"""By default, Prometheus ends a scrape after 10 seconds."""

UNCOUNTED_HOURS_MAX: Final = 168
"""With more uncounted hours, the metrics of added, released and refunded money are left out, because every
transaction of these hours would have to be read."""

LATENESS_WINDOW: Final = timedelta(hours=2)
"""At any moment this includes an hourly release."""

LATENESS_BOUNDS_SECONDS: Final = (60, 300, 900, 1800, 2700, 3600, 4500, 7200, 21600, 86400)

RUN_ENDED: Final = '["release_counts"]'
"""The asset, as in Dagster's storage, that a release run materializes last, even if nothing was due."""

CHECKS: Final = (*INVARIANTS, HISTORY_AS_SEALED)
"""The checks that prove something about the books."""

CHECKED: Final = ('["books"]', '["released_transactions"]')
"""The assets of these checks: the whole books, and the part that a release itself checks."""

logger: Final = logging.getLogger("buffer_pipeline.monitoring.metrics")


class BooksCollector(Collector):
    """Reads the books at each scrape, and Dagster's storage if it has an engine for it."""

    def __init__(
        self,
        engine: Engine,
        *,
        policy: Policy,
        endpoints: Sequence[str],
        dagster_storage: Engine | None = None,
    ) -> None:
        self._engine = engine.execution_options(postgresql_readonly=True)
        self._dagster_storage = dagster_storage and dagster_storage.execution_options(
            postgresql_readonly=True
        )
        self._policy = policy
        self._endpoints = endpoints
        # Concurrent scrapes read the books one after the other.
        self._reading = Lock()

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics. If the books can't be read in time, `buffer_up` is 0 and theirs are missing."""
        with self._reading:
            books = self._of_books()
            dagster = [] if self._dagster_storage is None else self._of_dagster(self._dagster_storage)
        yield from [*books, *dagster]

    def _of_books(self) -> list[Metric]:
        up = GaugeMetricFamily("buffer_up", "Whether the books could be read.")
        try:
            with _scrape(self._engine) as connection:
                now = database_clock(connection)
                found = [
                    *_waiting(connection, now=now),
                    _stuck(connection, now=now, policy=self._policy),
                    *debt_metrics(connection),
                    *payout_metrics(connection, now=now),
                    *self._outbox(connection, now=now),
                    *_released(connection, now=now),
                ]
        except DBAPIError as error:
            logger.warning("books: %s", first_line(error))
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        return [up, *found]

    def _outbox(self, connection: Connection, *, now: datetime) -> list[Metric]:
        if not fetch(connection, "metrics/may_read_outbox")[0]["may"]:
            return []
        figures = {found.endpoint: found for found in delivery_figures(connection)}
        new = GaugeMetricFamily("buffer_outbox_undispatched", "Notifications that are not dispatched yet.")
        waiting = GaugeMetricFamily("buffer_outbox_waiting", "Deliveries that wait.", labels=["endpoint"])
        dead = GaugeMetricFamily(
            "buffer_outbox_dead_letters", "Deliveries that were given up.", labels=["endpoint"]
        )
        age = GaugeMetricFamily(
            "buffer_outbox_oldest_age_seconds",
            "Age of the oldest message that waits, dispatched or not; 0 if none waits.",
        )
        undispatched = figures.pop(None, None)
        new.add_metric([], undispatched.waiting if undispatched else 0)
        for endpoint in sorted({*self._endpoints, *(name for name in figures if name is not None)}):
            found = figures.get(endpoint)
            waiting.add_metric([endpoint], found.waiting if found else 0)
            dead.add_metric([endpoint], found.dead if found else 0)
        oldest = (
            found.oldest_waiting
            for found in [*figures.values(), undispatched]
            if found and found.oldest_waiting
        )
        age.add_metric([], _age(min(oldest, default=None), now=now))
        return [new, waiting, dead, age]

    def _of_dagster(self, storage: Engine) -> list[Metric]:
        up = GaugeMetricFamily("buffer_dagster_up", "Whether Dagster's storage could be read.")
        succeeded = GaugeMetricFamily(
            "buffer_last_success_timestamp_seconds",
            "When a release run last ended, whether or not money moved.",
        )
        passed = GaugeMetricFamily(
            "buffer_check_passed", "Whether an invariant held when it was last proved.", labels=["check"]
        )
        checked = GaugeMetricFamily(
            "buffer_check_timestamp_seconds", "When an invariant was last proved.", labels=["check"]
        )
        try:
            with _scrape(storage) as connection:
                runs = fetch(connection, "metrics/dagster_runs", asset_key=RUN_ENDED)
                checks = fetch(
                    connection,
                    "metrics/dagster_checks",
                    asset_keys=[*CHECKED],
                    checks=[*CHECKS],
                )
        except DBAPIError as error:
            logger.warning("Dagster's storage: %s", first_line(error))
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        for row in runs:
            succeeded.add_metric([], row["succeeded_at"].timestamp())
        for row in checks:
            passed.add_metric([row["check_name"]], row["passed"])
            checked.add_metric([row["check_name"]], row["checked_at"].timestamp())
        return [up, succeeded, passed, checked]


@contextmanager
def _scrape(engine: Engine) -> Iterator[Connection]:
    with snapshot(engine) as connection:
        fetch(connection, "metrics/scrape_settings", milliseconds_max=int(1000 * STATEMENT_SECONDS_MAX))
        yield connection


def _waiting(connection: Connection, *, now: datetime) -> list[Metric]:
    holds = GaugeMetricFamily("buffer_holds", "Unsettled holds.", labels=["state", "currency"])
    held = GaugeMetricFamily(
        "buffer_held_amount_minor",
        "Amount of the unsettled holds, in minor units.",
        labels=["state", "currency"],
    )
    by_kind = GaugeMetricFamily(
        "buffer_held_share_amount_minor",
        "Amount of the unsettled holds by the kind of share, in minor units. Outstanding reserve: RESERVE.",
        labels=["kind", "currency"],
    )
    due = GaugeMetricFamily(
        "buffer_due_holds", "Holds that a release would release now.", labels=["currency"]
    )
    due_amount = GaugeMetricFamily(
        "buffer_due_amount_minor", "Amount of the due holds, in minor units.", labels=["currency"]
    )
    overdue = GaugeMetricFamily(
        "buffer_overdue_holds",
        "Holds that have been due for over an hour, and since before the latest full hour.",
        labels=["currency"],
    )
    age = GaugeMetricFamily(
        "buffer_oldest_due_age_seconds", "How long the oldest due hold has been due; 0 if none is due."
    )
    rows = fetch(connection, "metrics/waiting_holds", now=now, overdue_by=overdue_by(now))
    for currency in sorted({row["currency"] for row in rows}):
        of_currency = [row for row in rows if row["currency"] == currency]
        for state in sorted(UNSETTLED):
            of_state = [row for row in of_currency if row["state"] == state]
            holds.add_metric([state, currency], sum(row["holds"] for row in of_state))
            held.add_metric([state, currency], sum(int(row["amount_minor"]) for row in of_state))
        for kind in ShareKind:
            amounts_minor = (int(row["amount_minor"]) for row in of_currency if row["kind"] == kind)
            by_kind.add_metric([kind, currency], sum(amounts_minor))
        due.add_metric([currency], sum(row["due_holds"] for row in of_currency))
        due_amount.add_metric([currency], sum(int(row["due_minor"]) for row in of_currency))
        overdue.add_metric([currency], sum(row["overdue_holds"] for row in of_currency))
    oldest = min((row["oldest_due"] for row in rows if row["oldest_due"] is not None), default=None)
    age.add_metric([], _age(oldest, now=now))
    return [holds, held, by_kind, due, due_amount, overdue, age]


def _stuck(connection: Connection, *, now: datetime, policy: Policy) -> Metric:
    stuck = GaugeMetricFamily("buffer_stuck_holds", "Holds that have been frozen for too long.")
    stuck.add_metric([], count_stuck(connection, now=now, older_than=policy.stuck_after).holds)
    return stuck


def _released(connection: Connection, *, now: datetime) -> list[Metric]:
    """Return the metrics of transactions.

    From here on, the database transaction reads by index only.
    """
    fetch(connection, "database/read_by_index")
    last = GaugeMetricFamily(
        "buffer_last_release_timestamp_seconds", "When a scheduled release last moved money."
    )
    for row in fetch(connection, "metrics/last_release"):
        last.add_metric([], row["recorded_at"].timestamp())
    uncounted = GaugeMetricFamily("buffer_uncounted_hours", "Hours that are over and not counted yet.")
    began = fetch(connection, "hourly_counts/first_moment")[0]["moment"]
    hours: list[datetime] = []
    if began is not None:
        until = hour_of(now) + HOUR
        found = fetch(connection, "hourly_counts/uncounted_hours", since=hour_of(began), until=until)
        hours = [row["hour"] for row in found]
    over = [hour for hour in hours if hour + HOUR <= now]
    uncounted.add_metric([], len(over))
    moved = _moved(connection, hours) if len(over) <= UNCOUNTED_HOURS_MAX else []
    return [last, uncounted, *moved, _lateness(connection, now=now)]


def _moved(connection: Connection, hours: Sequence[datetime]) -> list[Metric]:
    added = CounterMetricFamily("buffer_holds_added", "Added holds.", labels=["currency"])
    added_amount = CounterMetricFamily(
        "buffer_added_amount_minor", "Amount of the added holds, in minor units.", labels=["currency"]
    )
    released = CounterMetricFamily("buffer_holds_released", "Released holds.", labels=["currency", "early"])
    released_amount = CounterMetricFamily(
        "buffer_released_amount_minor",
        "Amount of the released holds and parts, in minor units.",
        labels=["currency"],
    )
    parts = CounterMetricFamily(
        "buffer_parts_released", "Parts of holds that were released early.", labels=["currency"]
    )
    refunds = CounterMetricFamily("buffer_refunds", "Refunds of a hold or a part of it.", labels=["currency"])
    refunded = CounterMetricFamily(
        "buffer_refunded_amount_minor", "Amount of the refunds, in minor units.", labels=["currency"]
    )
    for row in fetch(connection, "metrics/moved", hours=list(hours)):
        currency, early = row["currency"], row["holds_released_early"]
        added.add_metric([currency], row["holds_added"])
        added_amount.add_metric([currency], int(row["added_minor"]))
        released.add_metric([currency, "no"], row["holds_released"] - early)
        released.add_metric([currency, "yes"], early)
        released_amount.add_metric([currency], int(row["released_minor"]))
        parts.add_metric([currency], row["parts_released"])
        refunds.add_metric([currency], row["refunds"])
        refunded.add_metric([currency], int(row["refunded_minor"]))
    return [added, added_amount, released, released_amount, parts, refunds, refunded]


def _lateness(connection: Connection, *, now: datetime) -> Metric:
    lateness = GaugeHistogramMetricFamily(
        "buffer_release_lateness_seconds",
        "Seconds from release date to release, of what the schedule released in the last two hours.",
    )
    rows = fetch(
        connection,
        "metrics/lateness",
        since=now - LATENESS_WINDOW,
        bounds_seconds=list(LATENESS_BOUNDS_SECONDS),
    )
    by_place = {row["bounds_below"]: row["releases"] for row in rows}
    in_order = accumulate(by_place.get(place, 0) for place in range(len(LATENESS_BOUNDS_SECONDS) + 1))
    bounds = [*(f"{bound:.1f}" for bound in LATENESS_BOUNDS_SECONDS), "+Inf"]
    lateness.add_metric([], list(zip(bounds, in_order, strict=True)), sum(row["seconds"] for row in rows))
    return lateness


def _age(moment: datetime | None, *, now: datetime) -> float:
    return 0.0 if moment is None else max(0.0, (now - moment).total_seconds())
