"""Notifications in Dagster: what a release sends, what goes out between the hours, the dead letters."""

import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any, Final

import dagster as dg
import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import Engine, func, select, update
from werkzeug import Request, Response

from buffer_pipeline.database import database_clock
from buffer_pipeline.hold import HoldState
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.orchestration.resources import books_from_environment
from buffer_pipeline.outbox import to_send
from buffer_pipeline.tables import delivery
from buffer_pipeline_tests.builders import PAYEE, place_hold, state_of, wallet_of
from buffer_pipeline_tests.runs import failure_of, release, reported
from buffer_pipeline_tests.stack import WAIT_SECONDS_MAX, first_line, free_port, serving

SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SENSOR: Final = "waiting_notifications"

Tick = Callable[[], Any]


@pytest.fixture
def receiver(httpserver: HTTPServer, environment: None, monkeypatch: pytest.MonkeyPatch) -> HTTPServer:
    """The one endpoint: a webhook at a server of this process."""
    del environment
    endpoint = {
        "name": "backend",
        "channel": "webhook",
        "url": httpserver.url_for("/hook"),
        "secrets": [SECRET],
        "allow_private": True,
    }
    monkeypatch.setenv("BUFFER_ENDPOINTS", json.dumps([endpoint]))
    return httpserver


@pytest.fixture
def tick(lasting_instance: dg.DagsterInstance) -> Tick:
    """Evaluates the sensor as the daemon does."""

    def evaluate() -> Any:
        with dg.build_sensor_context(
            instance=lasting_instance,
            repository_def=defs.get_repository_def(),
            sensor_name=SENSOR,
            resources={"books": books_from_environment},
        ) as context:
            return defs.resolve_sensor_def(SENSOR).evaluate_tick(context)

    return evaluate


def run_job(
    name: str, instance: dg.DagsterInstance, *, raise_on_error: bool = True, **config: object
) -> dg.ExecuteInProcessResult:
    """Run a job as the Launchpad does; `config` is its one op's."""
    job = defs.resolve_job_def(name)
    run_config = {"ops": {"replay": {"config": config}}} if config else {}
    return job.execute_in_process(instance=instance, run_config=run_config, raise_on_error=raise_on_error)


def metadata_of(result: dg.ExecuteInProcessResult, op: str) -> dict[str, Any]:
    """Return what the op reported with its output."""
    event = next(
        event
        for event in result.all_node_events
        if event.event_type_value == "STEP_OUTPUT" and event.node_name == op
    )
    return {name: value.value for name, value in event.step_output_data.metadata.items()}


def test_a_release_sends_what_it_has_written(
    receiver: HTTPServer, engine: Engine, lasting_instance: dg.DagsterInstance
) -> None:
    """The step reports what was sent, what is retried and dead, and what waits, at each endpoint too."""
    receiver.expect_request("/hook").respond_with_data(status=204)
    with engine.begin() as connection:
        place_hold(connection)

    result = release(lasting_instance)

    assert len(receiver.log) == 2
    shown = reported(result, "release_notifications")
    assert shown.pop("endpoints") == [
        {
            "endpoint": "backend",
            "sent": 2,
            "retried": 0,
            "dead": 0,
            "waiting": 0,
            "dead_letters": 0,
            "remark": "",
        }
    ]
    assert shown == {
        "sent": 2,
        "retried": 0,
        "dead": 0,
        "lost_leases": 0,
        "waiting": 0,
        "oldest_waiting": "none",
    }


def test_a_broken_receiver_fails_no_release(
    receiver: HTTPServer, engine: Engine, lasting_instance: dg.DagsterInstance
) -> None:
    """The payment is released, the run succeeds, and what the receiver did not take waits."""
    receiver.expect_request("/hook").respond_with_data(status=500)
    with engine.begin() as connection:
        before = database_clock(connection)
        hold_id = place_hold(connection)

    result = release(lasting_instance)

    assert result.success
    with engine.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.RELEASED
        assert wallet_of(connection, PAYEE).balance_minor == 100_000
    shown = reported(result, "release_notifications")
    assert (shown["sent"], shown["retried"], shown["dead"], shown["waiting"]) == (0, 1, 0, 2)
    assert shown["oldest_waiting"] < before.timestamp()
    assert reported(result, "release_counts")["holds_released"] == 1


def test_a_wrong_setting_fails_no_release(
    receiver: HTTPServer,
    engine: Engine,
    lasting_instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The release names the setting and goes on; the run between the hours fails with it."""
    monkeypatch.setenv("BUFFER_TEMPLATES", str(tmp_path / "nowhere"))
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    result = release(lasting_instance)
    between = run_job("deliver_notifications", lasting_instance, raise_on_error=False)

    assert result.success
    assert not receiver.log
    shown = reported(result, "release_notifications")
    assert shown["waiting"] == 2
    assert shown["error"].startswith("BUFFER_TEMPLATES: ")
    with engine.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.RELEASED
    assert not between.success


def test_an_endpoint_that_is_gone_is_named(
    receiver: HTTPServer, engine: Engine, lasting_instance: dg.DagsterInstance
) -> None:
    """What waits at an endpoint that is no longer configured is shown, with the remark that it is not."""
    receiver.expect_request("/hook").respond_with_data(status=204)
    with engine.begin() as connection:
        place_hold(connection)
    dispatch_all(engine, ["backend", "former"])

    result = run_job("deliver_notifications", lasting_instance)

    event = next(
        event
        for event in result.all_node_events
        if event.event_type_value == "STEP_OUTPUT" and event.node_name == "send_notifications"
    )
    table = event.step_output_data.metadata["endpoints"]
    assert isinstance(table, dg.TableMetadataValue)
    rows = {record.data["endpoint"]: record.data for record in table.records}
    assert (rows["backend"]["sent"], rows["backend"]["waiting"], rows["backend"]["remark"]) == (1, 0, "")
    assert (rows["former"]["waiting"], rows["former"]["remark"]) == (1, "not in BUFFER_ENDPOINTS")


def test_what_comes_between_hours_is_sent_by_the_sensors_run(
    receiver: HTTPServer, engine: Engine, lasting_instance: dg.DagsterInstance, tick: Tick
) -> None:
    """Nothing to send: a skip. A freeze: one run, which sends it. Meanwhile: a skip that names it."""
    receiver.expect_request("/hook").respond_with_data(status=204)
    quiet = tick()
    with engine.begin() as connection:
        place_hold(connection, state=HoldState.FROZEN)

    asked = tick()
    under_way = lasting_instance.create_run_for_job(
        defs.resolve_job_def("deliver_notifications"),
        status=dg.DagsterRunStatus.STARTED,
        tags={"buffer/notifications": "1"},
    )
    busy = tick()
    lasting_instance.delete_run(under_way.run_id)
    result = run_job("deliver_notifications", lasting_instance)
    done = tick()

    assert quiet.skip_message == "nothing is due to be sent"
    assert len(asked.run_requests) == 1
    assert busy.skip_message == f"run {under_way.run_id} is sending already"
    sent = [json.loads(request.data)["type"] for request, _ in receiver.log]
    assert sent == ["payment.pending", "payment.frozen"]
    assert metadata_of(result, "send_notifications")["sent"] == 2
    assert done.skip_message == "nothing is due to be sent"


def test_a_receiver_that_is_down_costs_a_run_a_minute(
    receiver: HTTPServer, engine: Engine, lasting_instance: dg.DagsterInstance, tick: Tick
) -> None:
    """What a run has just left is not asked for again at once; what is new is."""
    receiver.expect_request("/hook").respond_with_data(status=500)
    with engine.begin() as connection:
        place_hold(connection)
    run_job("deliver_notifications", lasting_instance)
    with engine.begin() as connection:
        connection.execute(update(delivery).values(next_attempt_at=delivery.c.created_at))

    left = tick()
    with engine.begin() as connection:
        place_hold(connection)
    new = tick()

    assert not left.run_requests
    assert "tried again 60 seconds behind its end" in left.skip_message
    assert len(new.run_requests) == 1


def test_what_waits_behind_a_failure_is_not_due(receiver: HTTPServer, engine: Engine) -> None:
    """An owner's later messages wait for the first one, so that they alone wake nobody."""
    del receiver
    with engine.begin() as connection:
        place_hold(connection)
        place_hold(connection)
    with engine.connect() as connection:
        now = database_clock(connection)
        before = to_send(connection, endpoints=["backend"], now=now)
        connection.rollback()
    dispatch_all(engine, ["backend"])
    with engine.begin() as connection:
        head = connection.scalar(select(func.min(delivery.c.delivery_id)))
        later = database_clock(connection)
        ready = to_send(connection, endpoints=["backend"], now=later)
        elsewhere = to_send(connection, endpoints=["another"], now=later)
        connection.execute(
            update(delivery)
            .where(delivery.c.delivery_id == head)
            .values(next_attempt_at=datetime(2999, 1, 1, tzinfo=later.tzinfo))
        )
        blocked = to_send(connection, endpoints=["backend"], now=later)

    assert (before.new, before.due) == (True, False)
    assert (ready.new, ready.due) == (False, True)
    assert not elsewhere.due
    assert not blocked.due


def dispatch_all(engine: Engine, endpoints: list[str]) -> None:
    """Write the deliveries of what is new."""
    from buffer_pipeline.outbox import Route, dispatch

    with engine.begin() as connection:
        dispatch(
            connection,
            [Route(name=name) for name in endpoints],
            batch_limit=1000,
            now=database_clock(connection),
        )


def test_dead_letters_are_sent_again(
    receiver: HTTPServer, engine: Engine, lasting_instance: dg.DagsterInstance
) -> None:
    """What a receiver refused for good is replayed by id, or by when it was given up."""
    receiver.expect_ordered_request("/hook").respond_with_data(status=400)
    receiver.expect_ordered_request("/hook").respond_with_data(status=204)
    with engine.begin() as connection:
        place_hold(connection)
    first = run_job("deliver_notifications", lasting_instance)
    with engine.connect() as connection:
        dead = connection.scalar(select(delivery.c.delivery_id))

    replayed = run_job("replay_dead_letters", lasting_instance, delivery_ids=[dead])
    again = run_job("replay_dead_letters", lasting_instance, since="2026-01-01T00:00:00Z")

    assert metadata_of(first, "send_notifications")["dead"] == 1
    shown = metadata_of(replayed, "replay")
    assert (shown["replayed"], shown["sent"], shown["waiting"]) == (1, 1, 0)
    assert metadata_of(again, "replay")["replayed"] == 0
    ids = {request.headers["webhook-id"] for request, _ in receiver.log}
    assert len(receiver.log) == 2
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("config", "fact"),
    [
        ({"endpoint": "backend"}, "needs delivery_ids, since or until"),
        ({"delivery_ids": [1], "since": "2026-01-01T00:00:00Z"}, "not both"),
        ({"since": "yesterday"}, "since 'yesterday': not an ISO 8601 time"),
    ],
    ids=["nothing", "both", "no time"],
)
@pytest.mark.usefixtures("environment")
def test_a_wrong_replay_is_refused(
    instance: dg.DagsterInstance, config: dict[str, object], fact: str
) -> None:
    """The message says what is missing, and nothing is sent."""
    result = run_job("replay_dead_letters", instance, raise_on_error=False, **config)

    assert not result.success
    assert fact in failure_of(result, "replay")


def test_a_freeze_is_told_between_two_hours(
    receiver: HTTPServer, engine: Engine, database_url: str, home: Path
) -> None:
    """On the real stack, with the default settings, a message needs no release to come to its receiver."""
    got = Event()

    def take(request: Request) -> Response:
        if json.loads(request.data)["type"] == "payment.frozen":
            got.set()
        return Response(status=204)

    receiver.expect_request("/hook").respond_with_handler(take)
    endpoints = os.environ["BUFFER_ENDPOINTS"]
    with serving(
        home, free_port(), sample=False, BUFFER_DATABASE_URL=database_url, BUFFER_ENDPOINTS=endpoints
    ) as process:
        first_line(process)

        with engine.begin() as connection:
            place_hold(connection, state=HoldState.FROZEN)

        assert got.wait(WAIT_SECONDS_MAX)
