"""The sample: plausible, sound, and the same each time."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import database_clock, make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.hours import HOUR, hour_of, overdue_by
from buffer_pipeline.monitoring.sent_alerts import AlertKind, is_alert_sent
from buffer_pipeline.policy import Policy
from buffer_pipeline.reports.due import due_holds
from buffer_pipeline.reports.stuck import stuck_holds
from buffer_pipeline.reports.totals import totals
from buffer_pipeline.simulation.sample import DOWN, LENGTH, load_sample
from buffer_pipeline.tables import hold_freeze, notification, transaction
from buffer_pipeline_tests.support.builders import SAMPLE_HOLDS
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.read_rows import all_backjobs, all_holds

NOW = datetime(2026, 3, 20, 9, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def loaded(server: EmbeddedServer) -> Iterator[Engine]:
    """An engine on books with the sample, for read-only tests."""
    with fresh_books(server) as url:
        engine = make_engine(url)
        with engine.begin() as connection:
            load_sample(connection, now=NOW)
        yield engine
        engine.dispose()


@pytest.fixture
def sample(loaded: Engine) -> Iterator[Connection]:
    """A connection to the sample."""
    with loaded.connect() as connection:
        yield connection


def test_the_sample_is_sound(sample: Connection) -> None:
    """Every invariant of the books holds in the sample."""
    violations = reconcile(sample)

    assert violations == []


def test_some_are_due_and_the_rest_is_spread_over_the_days_to_come(sample: Connection) -> None:
    """There are holds for the first run and for each of the next days."""
    due_now = due_holds(sample, due_by=NOW)
    due_by_day = [due_holds(sample, due_by=NOW + timedelta(days=day)).holds for day in range(8)]

    assert 8 <= due_now.holds <= 20
    assert set(due_now.amounts_minor) == {"PHP", "JPY"}
    assert due_by_day == sorted(set(due_by_day))


def test_the_sample_has_weeks_of_history(sample: Connection) -> None:
    """Each day has earnings, and from the second week on releases, until the job stopped."""
    begin, end = hour_of(NOW) - LENGTH, hour_of(NOW)
    days: dict[str, set[int]] = {"PENDING_EARNING": set(), "EARNING": set(), "REFUND": set()}
    for type_, recorded_at in sample.execute(select(transaction.c.type, transaction.c.recorded_at)):
        assert begin <= recorded_at < end
        days.setdefault(type_, set()).add((recorded_at - begin).days)
    stopped = (end - DOWN - begin).days
    found = totals(sample)

    assert days["PENDING_EARNING"] == set(range(28))
    assert set(range(8, stopped)) <= days["EARNING"]
    assert len(days["REFUND"]) >= 3
    assert {row["early"] for row in found.transactions if row["type"] == "EARNING"} == {True, False}


def test_the_sample_has_freezes_of_each_kind(sample: Connection) -> None:
    """Backjobs are open and decided in each way. ADMIN and RISK freezes are open, one for days."""
    standing = sample.scalars(select(hold_freeze.c.kind).where(hold_freeze.c.closed_at.is_(None)))
    kinds = set(standing)
    states = {row["state"] for row in all_backjobs(sample)}
    stuck = stuck_holds(sample, now=NOW, older_than=Policy().stuck_after)
    frozen = all_holds(sample, state=HoldState.FROZEN)

    assert kinds == set(FreezeKind)
    assert states == {"OPEN", "REJECTED", "APPROVED", "WITHDRAWN"}
    assert 0 < len(stuck) < len(frozen)


def test_only_notifications_of_the_last_day_wait(sample: Connection) -> None:
    """Those from before the job stopped count as dispatched. The few later ones wait for a drain."""
    stopped = hour_of(NOW) - DOWN
    dispatched = notification.c.dispatched_at.is_not(None)
    of_before, of_since = (
        [
            sample.execute(select(func.count()).where(when, condition)).scalar_one()
            for condition in (dispatched, ~dispatched)
        ]
        for when in (notification.c.created_at <= stopped, notification.c.created_at > stopped)
    )

    assert of_before[0] > 100
    assert of_before[1] == 0
    assert of_since[0] == 0
    assert 0 < of_since[1] < 50


@pytest.mark.parametrize(("minute", "alerted"), [(30, [True, False]), (55, [True, True])])
def test_the_samples_own_outage_is_no_alert(connection: Connection, minute: int, alerted: list[bool]) -> None:
    """Its overdue payments count as reported for the time of the first release."""
    now = NOW.replace(minute=minute)

    load_sample(connection, now=now)

    assert due_holds(connection, due_by=overdue_by(now)).holds > 0
    assert alerted == [
        is_alert_sent(connection, kind=AlertKind.OVERDUE_RELEASE, period=hour_of(now) + number * HOUR)
        for number in range(2)
    ]


def test_the_sample_is_the_same_each_time_whatever_the_clock_says(connection: Connection) -> None:
    """Two loads at the same moment give the same holds; at another moment they are shifted."""
    columns = ("reference", "job", "payee", "payer", "amount_minor", "currency", "state", "refunded_minor")
    later = NOW + 1000 * HOUR
    loads: list[list[tuple[Any, ...]]] = []
    for now in (NOW, NOW, later):
        attempt = connection.begin_nested()
        load_sample(connection, now=now)
        rows = all_holds(connection)
        loads.append([(*(row[name] for name in columns), now - row["release_date"]) for row in rows])
        attempt.rollback()

    first, second, moved = loads

    assert first == second == moved
    assert len(first) == SAMPLE_HOLDS


def test_the_sample_loads_at_any_moment(connection: Connection) -> None:
    """Also with the database's clock. Only release dates lie in the future."""
    now = database_clock(connection)

    load_sample(connection, now=now)

    assert all(row["held_at"] < now for row in all_holds(connection))
    assert all_holds(connection, state=HoldState.FROZEN)
