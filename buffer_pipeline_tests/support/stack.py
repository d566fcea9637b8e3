"""The real stack as `dev` starts it: its processes, its GraphQL API, its runs."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

WAIT_SECONDS_MAX: Final = 120
_DEV: Final = (Path(sys.executable).parent / "buffer-pipeline", "dev")

Found = TypeVar("Found")


@dataclass(frozen=True)
class Seat:
    """A UI behind a login."""

    address: str
    """Host and port."""
    login: str
    """Name and password, separated by a colon."""


Ui = int | Seat
"""A UI: the port of `dev`, or a URL with a login."""


def free_port() -> int:
    """Return a port without a listener, below those for outgoing connections, which could take it
    meanwhile.
    """
    while True:
        number = random.randrange(20_000, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", number))
            return number


@contextmanager
def serving(
    home: Path, port: int, *, sample: bool = True, starter: Sequence[Path] = (), **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Run `dev` in a separate process group, as a terminal does. Kill what is left of it at the end.

    `starter` is a program that starts the one whose command line follows.
    """
    process = subprocess.Popen(
        [*starter, *_DEV, "--port", str(port), "--sample" if sample else "--no-sample"],
        env={**os.environ, "BUFFER_HOME": str(home), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        for pid in (process.pid, *processes_of(home)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()


def processes_of(home: Path) -> list[int]:
    """Return the processes with this BUFFER_HOME in their environment: all those that `dev` has started."""
    named = f"BUFFER_HOME={home}".encode()
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if named in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
        except OSError:
            continue  # It has ended, or belongs to another user.
    return found


def lines_until_ui(process: subprocess.Popen[str]) -> list[str]:
    """Return the output during the start. The last line has the UI's address, when the UI is ready."""
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or not lines[-1].startswith("Dagster UI: "):
        line = process.stdout.readline()
        assert line, f"it ended after {lines}"
        lines.append(line.rstrip("\n"))
    return lines


def first_runs(process: subprocess.Popen[str]) -> list[str]:
    """Return the output about the first runs on sample data, up to the last thing to try."""
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or not lines[-1].startswith("  3. "):
        line = process.stdout.readline()
        assert line, f"it ended after {lines}"
        lines.append(line.rstrip("\n"))
    return lines


def rest_of(process: subprocess.Popen[str]) -> str:
    """Return the output from here to the end. `communicate` would lose lines that were read ahead."""
    assert process.stdout is not None
    rest = process.stdout.read()
    process.wait(timeout=WAIT_SECONDS_MAX)
    return rest


def wait_for(ask_for: Callable[[], Found | None], *, what: str) -> Found:
    """Poll with a deadline until there is a result, and return it."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not (found := ask_for()):
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_SECONDS_MAX} seconds"
        time.sleep(0.1)
    return found


def ask(ui: Ui, query: str, **variables: object) -> Any:
    """Send a query to the UI's GraphQL API."""
    request = urllib.request.Request(
        f"http://{ui.address if isinstance(ui, Seat) else f'127.0.0.1:{ui}'}/graphql",
        data=json.dumps({"query": query, "variables": variables}).encode(),
        headers={"content-type": "application/json"},
    )
    if isinstance(ui, Seat):
        request.add_header("Authorization", f"Basic {b64encode(ui.login.encode()).decode()}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]


def repository(ui: Ui) -> Any:
    """Wait for the code location, and return its schedules and sensors."""
    query = """{repositoriesOrError {... on RepositoryConnection {nodes {
        schedules {id name scheduleState {status}} sensors {name sensorState {status}}}}}}"""
    nodes = wait_for(
        lambda: ask(ui, query)["repositoriesOrError"].get("nodes"), what="the code location's load"
    )
    return nodes[0]


def launch_release(ui: Ui, **config: object) -> str:
    """Launch the release as from the Launchpad; return its run's id."""
    ops = {"released_transactions": {"ops": {"select_matured_transactions": {"config": config}}}}
    return launch(ui, "release_pending_payments", {"ops": ops})


def launch(ui: Ui, job: str, config: dict[str, object] | None = None) -> str:
    """Launch a job and return its run's id."""
    mutation = """mutation ($job: String!, $config: RunConfigData!) {launchRun(executionParams: {
        mode: "default", runConfigData: $config, selector: {
            repositoryLocationName: "buffer_pipeline", repositoryName: "__repository__",
            jobName: $job}}) {__typename ... on LaunchRunSuccess {run {runId}}}}"""
    run_id: str = ask(ui, mutation, job=job, config=config or {})["launchRun"]["run"]["runId"]
    return run_id


def end_of(ui: Ui, run_id: str) -> str:
    """Wait for the run's end and return its status."""

    def final() -> str | None:
        status = status_of(ui, run_id)
        return status if status in {"SUCCESS", "FAILURE", "CANCELED"} else None

    return wait_for(final, what=f"the end of run {run_id}")


def hourly_release(ui: Ui) -> dict[str, Any]:
    """Return the hourly schedule as the UI shows it."""
    return next(found for found in repository(ui)["schedules"] if found["name"] == "hourly_release")


@contextmanager
def hourly_release_stopped(ui: Ui) -> Iterator[None]:
    """Turn the hourly schedule off, so that only the test's own runs release."""
    schedule = hourly_release(ui)
    stopped = ask(
        ui, "mutation ($id: String!) {stopRunningSchedule(id: $id) {__typename}}", id=schedule["id"]
    )
    assert stopped["stopRunningSchedule"]["__typename"] == "ScheduleStateResult"
    try:
        # A run that began at the full hour meanwhile.
        wait_for(lambda: not unfinished_releases(ui), what="the end of the hour's own run")
        yield
    finally:
        started = ask(
            ui,
            "mutation ($selector: ScheduleSelector!)"
            " {startSchedule(scheduleSelector: $selector) {__typename}}",
            selector={
                "repositoryLocationName": "buffer_pipeline",
                "repositoryName": "__repository__",
                "scheduleName": "hourly_release",
            },
        )
    assert started["startSchedule"]["__typename"] == "ScheduleStateResult"


def unfinished_releases(ui: Ui) -> list[str]:
    """Return the ids of queued or running releases."""
    query = """{runsOrError(filter: {pipelineName: "release_pending_payments",
        statuses: [QUEUED, NOT_STARTED, STARTING, STARTED]}) {... on Runs {results {runId}}}}"""
    return [run["runId"] for run in ask(ui, query)["runsOrError"]["results"]]


def status_of(ui: Ui, run_id: str) -> str:
    """Return the run's status."""
    status: str = ask(ui, "query ($run: ID!) {runOrError(runId: $run) {... on Run {status}}}", run=run_id)[
        "runOrError"
    ]["status"]
    return status
