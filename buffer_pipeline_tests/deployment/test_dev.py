"""`dev` as users run it: real processes, a real UI, Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import text
from werkzeug import Request, Response

from buffer_pipeline.cli.first_look import Sample, first_look
from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import embedded_server
from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline_tests.support.builders import SAMPLE_HOLDS
from buffer_pipeline_tests.support.dev import command_of, held, logins_of, typed
from buffer_pipeline_tests.support.runs import corrupt
from buffer_pipeline_tests.support.stack import (
    WAIT_SECONDS_MAX,
    ask,
    end_of,
    first_runs,
    free_port,
    launch,
    launch_release,
    lines_until_ui,
    processes_of,
    repository,
    rest_of,
    serving,
    wait_for,
)

pytestmark = pytest.mark.timeout(600)

FIRST_JOBS: Final = ("release_pending_payments", "count_hours", "report_days", "reconcile_books")


@dataclass(frozen=True, kw_only=True)
class FirstStart:
    """What was seen of `dev` from its first start on sample data to Ctrl-C."""

    home: Path
    port: int
    started: list[str]
    at_once: Any
    logins: set[str]
    loaded: Any
    first_look: list[str]
    materialized: list[Any]
    runs: list[Any]
    typed: subprocess.CompletedProcess[str]
    status: str
    code: int
    left_behind: list[int]
    server_stopped: bool


@pytest.fixture(scope="module")
def first_start(tmp_path_factory: pytest.TempPathFactory) -> FirstStart:
    """The first start, once for this file. It launches its runs, and a release is launched by hand."""
    home, port = tmp_path_factory.mktemp("dev") / "home", free_port()
    with serving(home, port) as process:
        started = lines_until_ui(process)
        at_once = ask(port, "{repositoriesOrError {... on RepositoryConnection {nodes {name}}}}")
        logins = logins_of(home)
        loaded = repository(port)
        shown = first_runs(process)
        materialized = ask(
            port, "{assetNodes {isMaterializable assetKey {path} assetMaterializations(limit: 1) {runId}}}"
        )["assetNodes"]
        runs = ask(port, "{runsOrError {... on Runs {results {jobName status}}}}")["runsOrError"]["results"]
        tried = typed(command_of(shown))
        status = end_of(port, launch_release(port))
        # A terminal sends Ctrl-C to its whole foreground process group.
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(timeout=WAIT_SECONDS_MAX)
        return FirstStart(
            home=home,
            port=port,
            started=started,
            at_once=at_once,
            logins=logins,
            loaded=loaded,
            first_look=shown,
            materialized=materialized,
            runs=runs,
            typed=tried,
            status=status,
            code=code,
            left_behind=processes_of(home),
            server_stopped=not (home / "postgres" / "postmaster.pid").exists(),
        )


def test_dev_serves_until_ctrl_c(first_start: FirstStart) -> None:
    """It prints what it starts, serves a UI on sample data, runs the job and stops everything."""
    home, port, started = first_start.home, first_start.port, first_start.started
    # After twenty seconds it repeats what it is doing.
    still_waiting = [line for line in started if line.startswith("Still waiting for the ")]
    assert [line for line in started if line not in still_waiting] == [
        f"Starting PostgreSQL with the books in {home}.",
        f"Made new books in {home}.",
        "Loading the sample: four weeks of a simulated marketplace.",
        "Starting Dagster, which takes a minute or more the first time."
        f" Log: {home / 'dagster' / 'dagster.log'}",
        f"Dagster UI: http://127.0.0.1:{port}  (Ctrl-C stops everything)",
    ]
    # The address is printed after the definitions are loaded.
    assert first_start.at_once["repositoriesOrError"]["nodes"] == [{"name": "__repository__"}]
    # All of Dagster's processes. `serve`, which migrates, has no URL in its environment.
    assert first_start.logins == {"dagster"}
    loaded = first_start.loaded
    schedules = {schedule["name"]: schedule["scheduleState"]["status"] for schedule in loaded["schedules"]}
    assert schedules.pop("daily_payouts") == "STOPPED"
    assert set(schedules.values()) == {"RUNNING"}
    assert "hourly_release" in schedules
    assert {sensor["sensorState"]["status"] for sensor in loaded["sensors"]} == {"RUNNING"}
    assert {"overdue_releases", "stuck_frozen_payments"} <= {sensor["name"] for sensor in loaded["sensors"]}
    assert first_start.status == "SUCCESS"
    assert first_start.code == 0
    assert first_start.left_behind == []
    assert first_start.server_stopped


def test_first_start_launches_runs_to_look_at(first_start: FirstStart) -> None:
    """The first release, counts, report and proof are launched once each, and their results are printed with
    three things to try.
    """
    shown, tried = first_start.first_look, first_start.typed
    page = "\n".join(shown)
    assert re.search(r"^  released \d+ payments, .* PHP: http://127\.0\.0\.1:\d+/runs/", page, re.MULTILINE)
    assert re.search(r"^  counted 672 hours: http", page, re.MULTILINE)
    assert re.search(r"^  reported \d{4}-\d\d-\d\d: http", page, re.MULTILINE)
    assert f"  proved the books: http://127.0.0.1:{first_start.port}/assets/books?view=checks" in shown
    assert [line[:5] for line in shown if re.match(r"  \d\. ", line)] == ["  1. ", "  2. ", "  3. "]
    never = [
        node["assetKey"]["path"]
        for node in first_start.materialized
        if node["isMaterializable"] and not node["assetMaterializations"]
    ]
    # It moves money out: somebody launches it, or turns its schedule on.
    assert never == [["payout_batches"]]
    assert "List in another terminal the payments that are stuck" in page
    assert tried.stderr == ""
    assert "job-" in tried.stdout
    assert "due for more than an hour" not in page
    first = [run["jobName"] for run in first_start.runs if run["jobName"] in FIRST_JOBS]
    assert sorted(first) == sorted(FIRST_JOBS)


def logged_by(port: int, sensor: str) -> list[str]:
    """Return the log of the sensor's latest ticks, as the UI shows it."""
    query = """query ($selector: SensorSelector!) {sensorOrError(sensorSelector: $selector) {... on Sensor {
        sensorState {ticks(limit: 20) {logEvents {events {message}}}}}}}"""
    selector = {
        "repositoryLocationName": "buffer_pipeline",
        "repositoryName": "__repository__",
        "sensorName": sensor,
    }
    ticks = ask(port, query, selector=selector)["sensorOrError"]["sensorState"]["ticks"]
    return [event["message"] for tick in ticks for event in tick["logEvents"]["events"]]


@dataclass(frozen=True, kw_only=True)
class NextStart:
    """What was seen of `dev` from its next start to the death of its webserver."""

    runs: list[Any]
    tried: list[str]
    """The lines from the UI's address to the last thing to try."""
    alert: list[str]
    """The first lines on the terminal after the proof of broken books."""
    alert_seconds: float
    logged: list[str]
    ended: str
    """The output from then to the end."""
    code: int
    left_behind: list[int]
    holds: int


@pytest.fixture(scope="module")
def next_start(first_start: FirstStart) -> NextStart:
    """The next start, on which the books are broken, and then Dagster's webserver is killed."""
    home, port = first_start.home, first_start.port
    with serving(home, port) as process:
        lines_until_ui(process)
        tried = first_runs(process)
        runs = ask(port, "{runsOrError {... on Runs {results {status}}}}")["runsOrError"]["results"]
        with embedded_server(home) as server:
            superuser = server.url("buffer", user="postgres").render_as_string(hide_password=False)
            corrupt(
                superuser, "UPDATE buffer.wallet SET balance_minor = balance_minor + 7 WHERE wallet_id = 1"
            )
        assert end_of(port, launch(port, "reconcile_books")) == "SUCCESS"
        proved = time.monotonic()
        assert process.stdout is not None
        line = ""
        while "check" not in line:
            line = process.stdout.readline()
        seconds = time.monotonic() - proved
        alert = [line, *(process.stdout.readline() for _ in range(4))]
        logged = wait_for(lambda: logged_by(port, "failed_checks"), what="the tick's log")
        webserver = next(
            pid
            for pid in processes_of(home)
            if b"dagster_webserver" in (Path("/proc") / str(pid) / "cmdline").read_bytes()
        )
        os.kill(webserver, signal.SIGKILL)
        ended = rest_of(process)
        left_behind = processes_of(home)
    with embedded_server(home) as server:
        engine = make_engine(server.books_url)
        holds = held(engine)
        engine.dispose()
    return NextStart(
        runs=runs,
        tried=tried,
        alert=alert,
        alert_seconds=seconds,
        logged=logged,
        ended=ended,
        code=process.returncode,
        left_behind=left_behind,
        holds=holds,
    )


def test_next_start_keeps_the_data(next_start: NextStart) -> None:
    """It loads no sample and launches nothing, and prints the three things to try again."""
    assert {"status": "SUCCESS"} in next_start.runs
    assert next_start.holds == SAMPLE_HOLDS
    assert not any("The first runs" in line for line in next_start.tried)
    numbered = [line[:5] for line in next_start.tried if re.match(r"  \d\. ", line)]
    assert numbered == ["  1. ", "  2. ", "  3. "]


def test_broken_books_are_reported_on_the_terminal_and_in_the_tick(next_start: NextStart) -> None:
    """Without BUFFER_ALERT_URLS, within a minute of the proof that found them, with the rows."""
    line, *rows = next_start.alert
    assert line.startswith("ALERT 2 checks failed: books_balance, wallet_equals_its_transactions")
    assert next_start.alert_seconds < 60
    assert "books_balance of books, ERROR\n" in rows
    assert any(re.match(r"  currency PHP, ", row) for row in rows)
    assert any(
        "2 checks failed: books_balance, wallet_equals_its_transactions" in line for line in next_start.logged
    )


def test_dev_ends_when_dagster_does(first_start: FirstStart, next_start: NextStart) -> None:
    """If the webserver dies, `dev` stops the rest and names it."""
    assert next_start.code == 1
    assert "Dagster: its webserver ended by itself with exit code -9" in next_start.ended
    assert next_start.left_behind == []
    assert not (first_start.home / "postgres" / "postmaster.pid").exists()


def test_proof_runs_although_the_counts_failed(httpserver: HTTPServer) -> None:
    """The failed run is named, and no report is announced."""
    launched: list[str] = []

    def answer(request: Request) -> Response:
        payload = json.loads(request.get_data())
        if payload["query"].startswith("mutation"):
            launched.append(payload["variables"]["selector"]["jobName"])
            data: dict[str, Any] = {"launchRun": {"run": {"runId": launched[-1]}}}
        else:
            failed = payload["variables"]["id"] == "count_hours"
            tags = [{"key": "buffer/outcome", "value": "released 12 payments"}]
            data = {"runOrError": {"status": "FAILURE" if failed else "SUCCESS", "tags": tags}}
        return Response(json.dumps({"data": data}))

    httpserver.expect_request("/graphql").respond_with_handler(answer)
    ui, now = httpserver.url_for("").rstrip("/"), datetime.now(UTC)
    sample = Sample(first_hour=hour_of(now) - 48 * HOUR, loaded_at=now)

    look = first_look(
        ui, "here", sample, terminal="another terminal", command="buffer-pipeline", stop=threading.Event()
    )
    page = "\n".join(look)

    assert launched == ["release_pending_payments", "count_hours", "reconcile_books"]
    assert f"  count_hours ended as FAILURE: {ui}/runs/count_hours. The schedules launch" in page
    assert f"  proved the books: {ui}/assets/books?view=checks" in page
    assert f"  1. Look at what was released: {ui}/assets/released_transactions\n" in page
    assert "yesterday's report" not in page


def test_dagster_logs_in_as_a_releaser(home: Path) -> None:
    """Its login owns Dagster's storage. In the books it is a releaser and may make batches of payouts, as
    nobody is kept out on this machine. It is neither an owner nor a superuser.
    """
    with embedded_server(home) as server:
        engine = make_engine(server.releaser_url)
        with engine.connect() as connection:
            member_of = connection.scalars(
                text("SELECT rolname FROM pg_roles WHERE pg_has_role(current_user, oid, 'MEMBER') ORDER BY 1")
            ).all()
            rights = connection.execute(
                text(
                    "SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls FROM pg_roles"
                    " WHERE rolname = current_user"
                )
            ).one()
            owns = connection.scalars(
                text("SELECT datname FROM pg_database WHERE datdba = CAST(current_user AS regrole)")
            ).all()
        engine.dispose()

    assert member_of == ["buffer_payouts", "buffer_releaser", "dagster"]
    assert tuple(rights) == (False, False, False, False)
    assert owns == ["dagster"]


def test_storage_of_an_older_version_is_taken_over(home: Path) -> None:
    """In a BUFFER_HOME whose storage belonged to the books' owner, Dagster's login finds its runs."""
    with embedded_server(home) as server:
        admin = server.url("dagster", user="postgres").set(drivername="postgresql").render_as_string()
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute("ALTER DATABASE dagster OWNER TO buffer")
            connection.execute("DROP ROLE dagster")
            connection.execute("GRANT ALL ON SCHEMA public TO buffer")
            connection.execute("SET ROLE buffer")
            connection.execute("CREATE TABLE runs (id serial PRIMARY KEY)")
            connection.execute("INSERT INTO runs DEFAULT VALUES")

    with (
        embedded_server(home) as server,
        psycopg.connect(server.dagster_url.set(drivername="postgresql").render_as_string()) as connection,
    ):
        connection.execute("INSERT INTO runs DEFAULT VALUES")
        connection.execute("ALTER TABLE runs ADD finished boolean")

        assert connection.execute("SELECT id FROM runs ORDER BY id").fetchall() == [(1,), (2,)]


def test_dev_stops_in_the_middle_of_its_start(home: Path, port: int) -> None:
    """A signal before the UI is up stops everything that has started."""
    with serving(home, port) as process:
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while not (home / "dagster" / "dagster.log").exists():
            assert time.monotonic() < deadline, "it has not come as far as Dagster"
            time.sleep(0.05)
        process.terminate()
        code = process.wait(timeout=WAIT_SECONDS_MAX)
        left_behind = processes_of(home)

    assert code == 0
    assert left_behind == []
    assert not (home / "postgres" / "postmaster.pid").exists()
