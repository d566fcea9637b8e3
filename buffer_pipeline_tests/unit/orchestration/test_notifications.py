"""Notifications in Dagster: those of a release, those between releases, and dead letters."""

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
from buffer_pipeline.notifications.outbox import to_send
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.orchestration.resources import RESOURCES
from buffer_pipeline.tables import delivery
from buffer_pipeline_tests.support.builders import PAYEE, place_hold, state_of, wallet_of
from buffer_pipeline_tests.support.runs import JOB_NAME, corrupt, failure_of, release, reported
from buffer_pipeline_tests.support.stack import WAIT_SECONDS_MAX, free_port, lines_until_ui, serving

SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SENSOR: Final = "waiting_notifications"

Tick = Callable[[], Any]


@pytest.fixture
def receiver(httpserver: HTTPServer, environment: None, monkeypatch: pytest.MonkeyPatch) -> HTTPServer:
    """The only endpoint: a webhook at a server in this process."""
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
            resources=RESOURCES,
        ) as context:
            return defs.resolve_sensor_def(SENSOR).evaluate_tick(context)

    return evaluate


def run_job(
    name: str, instance: dg.DagsterInstance, *, raise_on_error: bool = True, **config: object
) -> dg.ExecuteInProcessResult:
    """Run a job as from the Launchpad; `config` is for its only op."""
    job = defs.resolve_job_def(name)
    run_config = {"ops": {"replay": {"config": config}}} if config else {}
    return job.execute_in_process(instance=instance, run_config=run_config, raise_on_error=raise_on_error)


def metadata_of(result: dg.ExecuteInProcessResult, op: str) -> dict[str, Any]:
    """Return the metadata of the op's output."""
    event = next(
        event
        for event in result.all_node_events
        if event.event_type_value == "STEP_OUTPUT" and event.node_name == op
    )
    return {name: value.value for name, value in event.step_output_data.metadata.items()}


def test_release_sends_its_notifications(
    receiver: HTTPServer, engine: Engine, lasting_instance: dg.DagsterInstance
) -> None:
    """The step reports sent, retried, dead and waiting ones, in total and by endpoint."""
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
    """The payment is released, the run succeeds, and the refused messages wait."""
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
    """The release names the setting and continues. The run between releases fails."""
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


def test_removed_endpoint_is_shown(
    receiver: HTTPServer, engine: Engine, lasting_instance: dg.DagsterInstance
) -> None:
    """What waits there is shown with a remark."""
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


def test_sensor_sends_notifications_between_releases(
    receiver: HTTPServer, engine: Engine, lasting_instance: dg.DagsterInstance, tick: Tick
) -> None:
    """Nothing to send is a skip. A freeze starts one run, which sends it. Meanwhile the sensor skips and
    names the run.
    """
    receiver.expect_request("/hook").respond_with_data(status=204)
    quiet = tick()
    with engine.begin() as connection:
        place_hold(connection, state=HoldState.FROZEN)

    evaluated = tick()
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
    assert len(evaluated.run_requests) == 1
    assert busy.skip_message == f"run {under_way.run_id} is sending already"
    sent = [json.loads(request.data)["type"] for request, _ in receiver.log]
    assert sent == ["payment.pending", "payment.frozen"]
    assert metadata_of(result, "send_notifications")["sent"] == 2
    assert done.skip_message == "nothing is due to be sent"


def test_nothing_is_sent_until_a_release_passes_its_checks(
    receiver: HTTPServer,
    superuser_url: str,
    engine: Engine,
    lasting_instance: dg.DagsterInstance,
    tick: Tick,
) -> None:
    """During a release, and after one with failed checks, the sensor launches nothing."""
    receiver.expect_request("/hook").respond_with_data(status=204)
    with engine.begin() as connection:
        place_hold(connection)
    in_progress = lasting_instance.create_run_for_job(
        defs.resolve_job_def(JOB_NAME), status=dg.DagsterRunStatus.STARTED
    )
    during = tick()
    lasting_instance.delete_run(in_progress.run_id)
    wrong = f"UPDATE buffer.wallet SET balance_minor = balance_minor + {{}} WHERE owner = '{PAYEE}'"
    corrupt(superuser_url, wrong.format(7))
    failed = release(lasting_instance, raise_on_error=False)

    broken = tick()
    sent_while_broken = len(receiver.log)
    corrupt(superuser_url, wrong.format(-7))
    repaired = release(lasting_instance)

    assert during.skip_message == f"run {in_progress.run_id} releases, and sends once its checks have passed"
    assert not failed.success
    assert broken.skip_message == (
        "books_balance, wallet_equals_its_transactions: failed; nothing is sent until a release passes this"
    )
    assert sent_while_broken == 0
    assert reported(repaired, "release_notifications")["sent"] == 2
    assert tick().skip_message == "nothing is due to be sent"


def test_a_receiver_that_is_down_costs_a_run_a_minute(
    receiver: HTTPServer, engine: Engine, lasting_instance: dg.DagsterInstance, tick: Tick
) -> None:
    """What a run has left is not requested again at once; new messages are."""
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
    assert "tried again 60 seconds after the end of that run" in left.skip_message
    assert len(new.run_requests) == 1


def test_messages_after_a_failed_one_are_not_due(receiver: HTTPServer, engine: Engine) -> None:
    """An owner's later messages wait for the first one and start no run."""
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
    """Write the deliveries of new notifications."""
    from buffer_pipeline.notifications.outbox import Route, dispatch

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
    """By id, or by the time they were given up."""
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


def test_a_freeze_is_notified_between_two_hours(
    receiver: HTTPServer, engine: Engine, database_url: str, home: Path
) -> None:
    """On the real stack with default settings, without a release."""
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
        lines_until_ui(process)

        with engine.begin() as connection:
            place_hold(connection, state=HoldState.FROZEN)

        assert got.wait(WAIT_SECONDS_MAX)
