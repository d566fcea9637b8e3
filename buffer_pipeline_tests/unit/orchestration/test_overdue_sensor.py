"""The sensor of overdue releases, tick by tick."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from sqlalchemy import Engine

from buffer_pipeline.hold import HoldState
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.orchestration.resources import Alerts, Books
from buffer_pipeline.release import release_matured
from buffer_pipeline_tests.support.builders import PAYEE
from buffer_pipeline_tests.support.receiver import Receiver
from buffer_pipeline_tests.support.runs import JOB_NAME, rows_of
from buffer_pipeline_tests.support.sensors import (
    DAGSTER_URL,
    OVERDUE,
    Sensor,
    date_alerts_back,
    evaluation_in,
    place,
)

# One alert per day or hour, so no test may run across the full hour.
pytestmark = pytest.mark.usefixtures("this_hour")


@pytest.fixture
def overdue_sensor(books_of: Books, receiver: Receiver, lasting_instance: dg.DagsterInstance) -> Sensor:
    """The sensor of overdue releases."""
    alerts = Alerts(urls=(receiver.url,), dagster_url=DAGSTER_URL)
    return Sensor(OVERDUE, lasting_instance, books=books_of, alerts=alerts)


def test_an_overdue_payment_is_flagged_and_reported(
    engine: Engine, overdue_sensor: Sensor, receiver: Receiver
) -> None:
    """A hold not released within the hour fails the check that lists it, and operators are alerted."""
    overdue = place(engine)

    tick = overdue_sensor.tick()

    evaluation = evaluation_in(tick)
    assert (evaluation.check_name, evaluation.passed) == ("nothing_overdue", False)
    assert evaluation.metadata["overdue_holds"].value == 1
    assert evaluation.metadata["amounts"].value == "1000.00 PHP"
    assert rows_of(evaluation, "holds")[0]["hold_id"] == overdue
    assert tick.skip_message == "1 payment due for more than an hour and not released; reported"
    [(title, message)] = receiver.got
    assert title == "1 payment due for more than an hour and not released: 1000.00 PHP"
    assert f"hold {overdue}, job job-8, to {PAYEE}, 1000.00 PHP, due since 2026-03-09 12:00 UTC" in message
    assert "buffer-pipeline release" in message
    assert f"{DAGSTER_URL}/locations/buffer_pipeline/jobs/{JOB_NAME}/playground" in message


def test_a_payment_due_just_now_is_not_overdue(
    engine: Engine, overdue_sensor: Sensor, receiver: Receiver
) -> None:
    """The next run is expected to release it. A frozen one is not due at all."""
    place(engine, held_at=datetime.now(UTC) - timedelta(days=7, minutes=30))
    place(engine, state=HoldState.FROZEN)

    first, second = overdue_sensor.tick(), overdue_sensor.tick()

    assert evaluation_in(first).passed
    assert first.skip_message == "no payment has been due for more than an hour"
    assert second.asset_events == []
    assert second.skip_message == first.skip_message
    assert receiver.got == []


def test_overdue_payments_are_reported_every_hour_while_it_lasts(
    engine: Engine, overdue_sensor: Sensor, receiver: Receiver
) -> None:
    """One alert per hour, even if more come due. After the release there are none."""
    place(engine)
    overdue_sensor.tick()

    unchanged = overdue_sensor.tick()
    place(engine)
    more = overdue_sensor.tick()
    alerts_by_then = len(receiver.got)
    date_alerts_back(engine, "1 hour")
    next_hour = overdue_sensor.tick()
    with engine.begin() as connection:
        release_matured(
            connection, due_by=datetime.now(UTC), now=datetime.now(UTC), batch_limit=10, source="a test"
        )
    released = overdue_sensor.tick()

    fact = "due for more than an hour and not released"
    assert unchanged.skip_message == f"1 payment {fact}, the same as before; already reported this hour"
    assert unchanged.asset_events == []
    assert more.skip_message == f"2 payments {fact}; already reported this hour"
    assert evaluation_in(more).metadata["overdue_holds"].value == 2
    assert alerts_by_then == 1
    assert next_hour.skip_message == f"2 payments {fact}, the same as before; reported"
    assert evaluation_in(released).passed
    assert [title for title, _ in receiver.got] == [
        f"1 payment {fact}: 1000.00 PHP",
        f"2 payments {fact}: 2000.00 PHP",
    ]


@pytest.mark.usefixtures("environment")
def test_a_sensors_tick_reads_the_books_of_the_environment(
    engine: Engine, lasting_instance: dg.DagsterInstance
) -> None:
    """As the daemon evaluates it."""
    place(engine)
    resources = dict(defs.resources or {})

    tick = Sensor(OVERDUE, lasting_instance, **resources).tick()

    assert tick.skip_message == (
        "1 payment due for more than an hour and not released;"
        " reported in this tick's log, as BUFFER_ALERT_URLS is not set"
    )
    assert len(tick.asset_events) == 1
