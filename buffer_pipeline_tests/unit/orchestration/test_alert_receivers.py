"""Sensors with a receiver of alerts that fails or hangs."""

import socket
import time
from typing import Final

import dagster as dg
import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import Engine, func, select, text
from werkzeug import Request, Response

from buffer_pipeline.hold import HoldState
from buffer_pipeline.monitoring import alerts as delivery
from buffer_pipeline.orchestration.resources import Alerts, Books
from buffer_pipeline.tables import alert
from buffer_pipeline_tests.support.receiver import Receiver
from buffer_pipeline_tests.support.sensors import FAILED_CHECKS, OVERDUE, STUCK, Sensor, fail, place

# One alert per day or hour, so no test may run across the full hour.
pytestmark = pytest.mark.usefixtures("this_hour")

FAILED: Final = "failed_runs"


@pytest.mark.parametrize("name", [STUCK, OVERDUE, FAILED, FAILED_CHECKS])
def test_refused_alert_is_sent_again_at_the_next_tick(
    engine: Engine,
    books_of: Books,
    receiver: Receiver,
    lasting_instance: dg.DagsterInstance,
    name: str,
) -> None:
    """A tick whose alert gets a 500 succeeds and reports it. The next one sends the alert again, once."""
    resources = {"alerts": Alerts(urls=(receiver.url,))} | (
        {} if name in {FAILED, FAILED_CHECKS} else {"books": books_of}
    )
    sensor = Sensor(name, lasting_instance, **resources)
    sensor.tick()
    place(engine)
    place(engine, state=HoldState.FROZEN)
    fail(lasting_instance)
    lasting_instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("books"), check_name="books_balance", passed=False, metadata={}
        )
    )
    receiver.answers(500)

    refused = sensor.tick()
    receiver.answers(200)
    taken, after = sensor.tick(), sensor.tick()

    assert refused.skip_message is not None
    assert (
        "not reported: no receiver took the alert; it is sent again at the next tick" in refused.skip_message
    )
    assert taken.skip_message is not None
    assert "not reported" not in taken.skip_message
    assert "reported" in taken.skip_message
    assert len(receiver.got) == 2
    assert receiver.got[0] == receiver.got[1]
    assert after.asset_events == []


def test_hanging_receiver_costs_limited_time(
    engine: Engine,
    books_of: Books,
    lasting_instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And no transaction is open meanwhile."""
    place(engine, state=HoldState.FROZEN)
    monkeypatch.setattr(delivery, "ALERT_SECONDS_MAX", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        alerts = Alerts(urls=(f"json://127.0.0.1:{hanging.getsockname()[1]}/",))
        sensor = Sensor(STUCK, lasting_instance, books=books_of, alerts=alerts)
        began = time.monotonic()

        tick = sensor.tick()

        seconds = time.monotonic() - began
    assert tick.skip_message is not None
    assert "not reported" in tick.skip_message
    assert seconds < 3
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(alert)) == 0


def test_alert_is_sent_outside_any_transaction(
    engine: Engine, stuck_sensor: Sensor, httpserver: HTTPServer
) -> None:
    """While the receiver has the message, no transaction is open on the books."""
    place(engine, state=HoldState.FROZEN)
    open_transactions: list[int] = []

    def look(_request: Request) -> Response:
        with engine.connect() as connection:
            open_transactions.append(
                connection.execute(
                    text(
                        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                        " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
                    )
                ).scalar_one()
            )
        return Response()

    httpserver.clear_all_handlers()
    httpserver.expect_request("/alerts").respond_with_handler(look)

    stuck_sensor.tick()

    assert open_transactions == [0]
