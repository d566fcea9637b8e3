"""The real stack as `dev` starts it: its processes, its UI's GraphQL, its runs."""

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
    """Name and password, with a colon between them."""


Ui = int | Seat
"""A UI: the port that `dev` serves it at, or a seat."""


def free_port() -> int:
    """Return a port that nobody listens on.

    Below those that Linux gives to outgoing connections: one of these could have it before it is listened on.
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
    """Run `dev` in a process group of its own, as a terminal does; kill all that is left of it.

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
    """Return the processes whose environment names this BUFFER_HOME: all that `dev` has started."""
    named = f"BUFFER_HOME={home}".encode()
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if named in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
        except OSError:
            continue  # It ended meanwhile, or is somebody else's.
    return found


def first_line(process: subprocess.Popen[str]) -> str:
    """Return what it prints first, which is when it is ready."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert "http://" in line or line.startswith("Made new books"), line + process.stdout.read()
    return line


def first_runs(process: subprocess.Popen[str]) -> list[str]:
    """Return what it prints of the first runs over a sample, up to the last thing to try."""
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or not lines[-1].startswith("  3. "):
        line = process.stdout.readline()
        assert line, f"it ended behind {lines}"
        lines.append(line.rstrip("\n"))
    return lines


def wait_for(ask_for: Callable[[], Found | None], *, what: str) -> Found:
    """Poll, with a deadline, until there is an answer, and return it."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not (found := ask_for()):
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_SECONDS_MAX} seconds"
        time.sleep(0.1)
    return found


def ask(ui: Ui, query: str, **variables: object) -> Any:
    """Ask the UI's GraphQL."""
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
    """Return the schedules and sensors of the loaded code, once it is loaded."""
    query = """{repositoriesOrError {... on RepositoryConnection {nodes {
        schedules {id name scheduleState {status}} sensors {name sensorState {status}}}}}}"""
    nodes = wait_for(
        lambda: ask(ui, query)["repositoriesOrError"].get("nodes"), what="the code location's load"
    )
    return nodes[0]


def launch_release(ui: Ui, **config: object) -> str:
    """Launch the release as the Launchpad does and return its run's id."""
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


@contextmanager
def hourly_release_stopped(ui: Ui) -> Iterator[None]:
    """Turn the hourly schedule off meanwhile, so that no run but the test's own takes what is due."""
    schedule = next(found for found in repository(ui)["schedules"] if found["name"] == "hourly_release")
    stopped = ask(
        ui, "mutation ($id: String!) {stopRunningSchedule(id: $id) {__typename}}", id=schedule["id"]
    )
    assert stopped["stopRunningSchedule"]["__typename"] == "ScheduleStateResult"
    try:
        # One that the full hour has begun meanwhile.
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
    """Return the ids of release runs that are queued or under way."""
    query = """{runsOrError(filter: {pipelineName: "release_pending_payments",
        statuses: [QUEUED, NOT_STARTED, STARTING, STARTED]}) {... on Runs {results {runId}}}}"""
    return [run["runId"] for run in ask(ui, query)["runsOrError"]["results"]]


def status_of(ui: Ui, run_id: str) -> str:
    """Return the run's status."""
    status: str = ask(ui, "query ($run: ID!) {runOrError(runId: $run) {... on Run {status}}}", run=run_id)[
        "runOrError"
    ]["status"]
    return status
