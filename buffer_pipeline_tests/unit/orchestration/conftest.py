"""Shared fixtures: a sensor, and a due payment."""

import dagster as dg
import pytest
from sqlalchemy import Engine

from buffer_pipeline.orchestration.resources import Alerts, Books
from buffer_pipeline_tests.support.builders import place_hold
from buffer_pipeline_tests.support.receiver import Receiver
from buffer_pipeline_tests.support.sensors import DAGSTER_URL, STUCK, Sensor


@pytest.fixture
def stuck_sensor(books_of: Books, receiver: Receiver, lasting_instance: dg.DagsterInstance) -> Sensor:
    """The sensor of stuck payments."""
    alerts = Alerts(urls=(receiver.url,), dagster_url=DAGSTER_URL)
    return Sensor(STUCK, lasting_instance, books=books_of, alerts=alerts)


@pytest.fixture
def waiting(engine: Engine, environment: None) -> int:
    """A hold of 1000.00 PHP that has been due for a long time."""
    del environment
    with engine.begin() as connection:
        return place_hold(connection)
