"""When `dev` reports that the UI is ready, and its messages until then."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from buffer_pipeline.cli import dev_processes
from buffer_pipeline.cli.dev_processes import DagsterProcesses, wait_for_ui
from buffer_pipeline.cli.dev_ui import definitions_are_loaded, webserver_answers
from buffer_pipeline.cli.first_look import FIRST_ASSET, things_to_try
from buffer_pipeline.errors import PaymentBufferError

NOBODY = "http://127.0.0.1:1"
LOADED = {"loadStatus": "LOADED", "locationOrLoadError": {"__typename": "RepositoryLocation"}}
LOADING = {"loadStatus": "LOADING", "locationOrLoadError": None}
FAILED = {"loadStatus": "LOADED", "locationOrLoadError": {"__typename": "PythonError"}}


def answer(httpserver: HTTPServer, *answers: list[dict[str, Any]]) -> str:
    """Answer queries for code locations with these entries in order; return the URL."""
    for entries in answers:
        body = {"data": {"workspaceOrError": {"locationEntries": entries}}}
        httpserver.expect_ordered_request("/graphql").respond_with_data(json.dumps(body))
    return httpserver.url_for("").rstrip("/")


@pytest.fixture
def processes(tmp_path: Path) -> DagsterProcesses:
    """Dagster's processes, none of them started."""
    return DagsterProcesses({"DAGSTER_HOME": str(tmp_path)}, scratch=tmp_path)


def test_definitions_are_loaded_when_every_location_is(httpserver: HTTPServer) -> None:
    """False while a location loads or has an error, or nobody answers."""
    ui = answer(httpserver, [], [LOADING], [FAILED], [LOADED, FAILED], [LOADED])

    found = [definitions_are_loaded(ui) for _ in range(5)]

    assert found == [False, False, False, False, True]
    assert not definitions_are_loaded(NOBODY)
    assert not webserver_answers(NOBODY)


def test_the_ui_is_ready_after_the_definitions(
    httpserver: HTTPServer, processes: DagsterProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps waiting after the webserver answers, and names what it waits for."""
    monkeypatch.setattr(dev_processes, "STILL_WAITING_SECONDS", 0)
    httpserver.expect_ordered_request("/server_info").respond_with_data("{}")
    ui = answer(httpserver, [FAILED], [LOADED])
    output: list[str] = []

    wait_for_ui(processes, threading.Event(), ui=ui, say=output.append)

    assert len(httpserver.log) == 3
    assert output == ["Still waiting for the definitions to load, after 0 seconds."]


def test_a_ui_that_is_never_ready_is_an_error(
    httpserver: HTTPServer, processes: DagsterProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says what is missing and names the log. A signal ends the wait without an error."""
    monkeypatch.setattr(dev_processes, "READY_SECONDS_MAX", 0)
    httpserver.expect_request("/server_info").respond_with_data("{}")
    stopped = threading.Event()
    stopped.set()

    wait_for_ui(processes, stopped, ui=NOBODY, say=print)
    with pytest.raises(PaymentBufferError, match=r"for the definitions to load; .*/dagster\.log says why"):
        wait_for_ui(processes, threading.Event(), ui=httpserver.url_for("").rstrip("/"), say=print)


def test_three_things_to_try() -> None:
    """A page, a command and a dry run."""
    things = things_to_try(NOBODY, FIRST_ASSET, terminal="another terminal", command="buffer-pipeline")

    assert things.splitlines() == [
        "Three things to try:",
        "  1. Look at what was released: http://127.0.0.1:1/assets/released_transactions",
        "  2. List in another terminal the payments that are stuck: buffer-pipeline stuck",
        "  3. Try a release that moves no money: Jobs → release_pending_payments → ▾ → Open launchpad,"
        " with dry_run: true",
    ]
