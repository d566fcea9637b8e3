"""The heartbeat and the JSON log lines of a release, from the command and from Dagster."""

import json
import logging
import socket
from collections.abc import Iterator
from typing import Any, Final

import dagster as dg
import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import Engine, text

from buffer_pipeline.errors import SettingError
from buffer_pipeline.hold import HoldState
from buffer_pipeline.monitoring.heartbeat import HEARTBEAT_SECONDS_MAX, beat
from buffer_pipeline.settings import load_settings
from buffer_pipeline_tests.support.builders import PAYEE, place_hold, state_of
from buffer_pipeline_tests.support.processes import start
from buffer_pipeline_tests.support.runs import corrupt, outcomes, release

SECRET: Final = "5f2c9a7e"


@pytest.fixture
def receiver(httpserver: HTTPServer) -> HTTPServer:
    """A receiver of heartbeats."""
    httpserver.expect_request(f"/{SECRET}", method="GET").respond_with_data("OK")
    return httpserver


def run(*arguments: str, **settings: str) -> tuple[int, str, list[str]]:
    """Run a command to its end; return its exit code, its output and its lines on stderr."""
    process = start(*arguments, **settings)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err.splitlines()


def test_a_release_on_the_command_line_beats_once(
    engine: Engine, database_url: str, receiver: HTTPServer
) -> None:
    """After a release with or without due holds, but not after a dry run. The release is
    committed by then.
    """
    with engine.begin() as connection:
        hold_id = place_hold(connection)
    books = {
        "BUFFER_DATABASE_URL": database_url,
        "BUFFER_HEARTBEAT_URL": receiver.url_for(f"/{SECRET}"),
    }

    dry, *_ = run("release", "--dry-run", **books)
    beats_dry = len(receiver.log)
    wet, *_ = run("release", **books)

    assert (dry, beats_dry) == (0, 0)
    assert (wet, len(receiver.log)) == (0, 1)
    with engine.begin() as connection:
        assert state_of(connection, hold_id) is HoldState.RELEASED


@pytest.mark.usefixtures("environment")
def test_a_run_in_dagster_beats_at_its_end(
    engine: Engine,
    superuser_url: str,
    instance: dg.DagsterInstance,
    receiver: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once a run, with or without due holds; not for a dry run or failed checks."""
    monkeypatch.setenv("BUFFER_HEARTBEAT_URL", receiver.url_for(f"/{SECRET}"))

    dry = release(instance, dry_run=True)
    beats_dry = len(receiver.log)
    good = release(instance)
    beats = len(receiver.log)
    with engine.begin() as connection:
        place_hold(connection)
    corrupt(superuser_url, "UPDATE buffer.wallet SET balance_minor = balance_minor + 1")
    broken = release(instance, raise_on_error=False)

    assert (beats_dry, beats) == (0, 1)
    assert heartbeat_steps(dry) == []
    assert heartbeat_steps(good) == [{"requested": True, "answered": True}]
    assert heartbeat_steps(broken) == []
    assert outcomes(broken)["wallet_equals_its_transactions"] is False
    assert len(receiver.log) == beats


@pytest.mark.usefixtures("environment")
def test_without_its_url_the_step_of_the_heartbeat_requests_nothing(instance: dg.DagsterInstance) -> None:
    """The step runs and reports that."""
    result = release(instance)

    assert heartbeat_steps(result) == [{"requested": False, "answered": False}]


def heartbeat_steps(result: dg.ExecuteInProcessResult) -> list[dict[str, Any]]:
    """Return the reports of the step `send_heartbeat`."""
    return [
        {name: value.value for name, value in event.step_output_data.metadata.items()}
        for event in result.all_node_events
        if event.event_type_value == "STEP_OUTPUT" and event.step_key == "release_counts.send_heartbeat"
    ]


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/{SECRET}"


def test_a_heartbeat_that_fails_fails_no_release(engine: Engine, database_url: str) -> None:
    """Refused or not answered, the release succeeds with exit code 0 and logs one line without the URL."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]

    code, _, err = run(
        "release",
        BUFFER_DATABASE_URL=database_url,
        BUFFER_HEARTBEAT_URL=f"http://127.0.0.1:{port}/{SECRET}",
    )

    assert code == 0
    assert err == ["heartbeat: ClientConnectorError"]
    with engine.begin() as connection:
        assert state_of(connection, hold_id) is HoldState.RELEASED


def test_failed_heartbeat_is_logged_with_its_reason(
    httpserver: HTTPServer, silent: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unsuccessful status, or no answer; never the URL."""
    monkeypatch.setattr("buffer_pipeline.monitoring.heartbeat.HEARTBEAT_SECONDS_MAX", 0.2)
    httpserver.expect_request(f"/{SECRET}").respond_with_data("no", status=503)

    beaten = [beat(httpserver.url_for(f"/{SECRET}")), beat(silent), beat(None)]

    assert beaten == [False, False, False]
    output = [record.getMessage() for record in caplog.records if record.name == "buffer_pipeline.heartbeat"]
    assert output == ["heartbeat: HTTP 503", "heartbeat: no answer within 0.2 seconds"]
    assert HEARTBEAT_SECONDS_MAX <= 5


@pytest.mark.parametrize("given", ["ftp://example.com", "hc-ping.com/5f2c9a7e", "http://[/5f2c9a7e"])
def test_malformed_heartbeat_url_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable's name and without the secret."""
    monkeypatch.setenv("BUFFER_HEARTBEAT_URL", given)

    with pytest.raises(SettingError, match="BUFFER_HEARTBEAT_URL: not a URL") as refused:
        load_settings()

    assert SECRET not in str(refused.value)


def test_each_line_of_a_release_has_its_run_and_its_batch(engine: Engine, database_url: str) -> None:
    """One JSON object per line, for every worker, with the books' batch ids."""
    with engine.begin() as connection:
        for number in range(6):
            place_hold(connection, payee=f"worker-{number}")

    code, out, err = run(
        "release", "--workers", "3", "--json", BUFFER_DATABASE_URL=database_url, BUFFER_LOG="json"
    )

    lines = [json.loads(line) for line in err if line.startswith("{")]
    batches = [line for line in lines if line["event"] == "batch released"]
    with engine.connect() as connection:
        batch_ids = set(connection.scalars(text("SELECT batch_id FROM buffer.batch")))
    assert code == 0
    assert len({line["run_id"] for line in lines}) == 1
    assert len(batches) == 3
    assert {line["batch_id"] for line in batches} == batch_ids
    assert sum(line["holds_released"] for line in batches) == 6 == json.loads(out)["holds_released"]
    assert lines[-1]["event"] == "release ended"
    assert lines[-1]["amounts_minor"] == {"PHP": 600_000}
    assert {(line["level"], line["logger"]) for line in lines} == {("info", "buffer_pipeline.release")}


@pytest.mark.usefixtures("environment")
def test_dagster_run_logs_ids_but_no_message_texts(
    engine: Engine,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its lines have the run's id; a notification's have ids."""
    monkeypatch.setenv("BUFFER_LOG", "json")
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    result = release(instance)

    lines: list[dict[str, Any]] = [
        json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")
    ]
    assert {line["run_id"] for line in lines} == {result.run_id}
    assert [line["holds_released"] for line in lines if line["event"] == "batch released"] == [1]
    notified = [line for line in lines if line["event"] == "notification"]
    assert {line["type"] for line in notified} == {"PAYMENT_PENDING", "PAYMENT_RELEASED"}
    common = {"event", "notification_id", "type", "owner", "job", "hold_id", "run_id"}
    for line in notified:
        assert line.keys() == common | {"level", "logger", "timestamp"}
        assert (line["owner"], line["hold_id"]) == (PAYEE, hold_id)


def test_text_format_logs_no_release_lines(engine: Engine, database_url: str) -> None:
    """What it did is its answer."""
    with engine.begin() as connection:
        place_hold(connection)

    code, out, err = run("release", BUFFER_DATABASE_URL=database_url)

    assert (code, err) == (0, [])
    assert "Released 1 payment" in out
    assert logging.getLogger("buffer_pipeline").handlers == []
