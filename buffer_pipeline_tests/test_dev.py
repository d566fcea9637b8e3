"""`dev` as people use it: real processes, a real UI, Ctrl-C."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import Engine, func, select, text
from sqlalchemy.engine import make_url
from werkzeug import Request, Response

from buffer_pipeline.cli.dev import serve
from buffer_pipeline.cli.first_look import Sample, first_look
from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer, embedded_server
from buffer_pipeline.errors import PaymentBufferError, SettingError
from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline.settings import Settings
from buffer_pipeline.tables import hold
from buffer_pipeline_tests.builders import SAMPLE_HOLDS
from buffer_pipeline_tests.runs import corrupt
from buffer_pipeline_tests.stack import (
    WAIT_SECONDS_MAX,
    ask,
    end_of,
    first_line,
    first_runs,
    free_port,
    launch,
    launch_release,
    processes_of,
    repository,
    serving,
    wait_for,
)

FIRST_JOBS: Final = ("release_pending_payments", "count_hours", "report_days", "reconcile_books")


@pytest.fixture
def port() -> int:
    """A port that nobody listens on."""
    return free_port()


def held(engine: Engine) -> int:
    """Return how many holds there are."""
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(hold)).scalar_one()


def logins_of(home: Path) -> set[str]:
    """Return whom the processes of `serve` log in as, by their environment."""
    environments = [
        (Path("/proc") / str(pid) / "environ").read_bytes().decode() for pid in processes_of(home)
    ]
    return set(re.findall(r"BUFFER_(?:DAGSTER_)?DATABASE_URL=[^/]+//(\w+)@", "".join(environments)))


def test_dev_serves_until_ctrl_c_and_keeps_the_data(home: Path, port: int) -> None:
    """It shows a UI over a sample, runs the job, and stops everything; the next start finds the data."""
    with serving(home, port) as process:
        started = first_line(process)
        said = first_line(process)
        logins = logins_of(home)
        loaded = repository(port)
        status = end_of(port, launch_release(port))
        # A terminal sends Ctrl-C to its whole foreground process group.
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(timeout=WAIT_SECONDS_MAX)
        left_behind = processes_of(home)
        server_stopped = not (home / "postgres" / "postmaster.pid").exists()

    assert started == f"Dagster UI: http://127.0.0.1:{port}  (Ctrl-C stops everything)"
    assert said == f"Made new books in {home}."
    # All of Dagster's processes; `serve` itself, which migrates, has no URL in its environment.
    assert logins == {"dagster"}
    assert {schedule["scheduleState"]["status"] for schedule in loaded["schedules"]} == {"RUNNING"}
    assert "hourly_release" in {schedule["name"] for schedule in loaded["schedules"]}
    assert {sensor["sensorState"]["status"] for sensor in loaded["sensors"]} == {"RUNNING"}
    assert {"overdue_releases", "stuck_frozen_payments"} <= {sensor["name"] for sensor in loaded["sensors"]}
    assert status == "SUCCESS"
    assert code == 0
    assert left_behind == []
    assert server_stopped

    with serving(home, port) as process:
        first_line(process)
        runs = ask(port, "{runsOrError {... on Runs {results {status}}}}")["runsOrError"]["results"]
        process.terminate()
        code = process.wait(timeout=WAIT_SECONDS_MAX)
        left_behind = processes_of(home)
    with embedded_server(home) as server:
        engine = make_engine(server.books_url)
        holds = held(engine)
        engine.dispose()

    assert {"status": "SUCCESS"} in runs
    assert code == 0
    assert left_behind == []
    assert holds == SAMPLE_HOLDS


def test_the_first_screen_over_a_sample_has_something_to_look_at(home: Path, port: int) -> None:
    """The first release, counts, report and proof are launched, once each, and what they did is printed with
    three things to try; the next start launches nothing.
    """
    with serving(home, port) as process:
        first_line(process)
        said = first_runs(process)
        materialized = ask(
            port, "{assetNodes {isMaterializable assetKey {path} assetMaterializations(limit: 1) {runId}}}"
        )["assetNodes"]
        runs = ask(port, "{runsOrError {... on Runs {results {jobName status}}}}")["runsOrError"]["results"]
        tried = typed(command_of(said))
        process.terminate()
        process.wait(timeout=WAIT_SECONDS_MAX)
    with serving(home, port) as process:
        first_line(process)
        process.terminate()
        again, _ = process.communicate(timeout=WAIT_SECONDS_MAX)

    page = "\n".join(said)
    assert re.search(r"^  released \d+ payments, .* PHP: http://127\.0\.0\.1:\d+/runs/", page, re.MULTILINE)
    assert re.search(r"^  counted 672 hours: http", page, re.MULTILINE)
    assert re.search(r"^  reported \d{4}-\d\d-\d\d: http", page, re.MULTILINE)
    assert f"  proved the books: http://127.0.0.1:{port}/assets/books?view=checks" in said
    assert [line[:5] for line in said if re.match(r"  \d\. ", line)] == ["  1. ", "  2. ", "  3. "]
    never = [
        node["assetKey"]["path"]
        for node in materialized
        if node["isMaterializable"] and not node["assetMaterializations"]
    ]
    assert never == []
    assert "Ask in another terminal which payments are stuck" in page
    assert tried.stderr == ""
    assert "job-" in tried.stdout
    assert "due for more than an hour" not in page
    first = [run["jobName"] for run in runs if run["jobName"] in FIRST_JOBS]
    assert sorted(first) == sorted(FIRST_JOBS)
    assert "The first runs" not in again


def test_the_books_are_proved_though_the_counts_failed(httpserver: HTTPServer) -> None:
    """What failed is named with its run, the proof comes all the same, and no report is to be looked at."""
    launched: list[str] = []

    def answer(request: Request) -> Response:
        asked = json.loads(request.get_data())
        if asked["query"].startswith("mutation"):
            launched.append(asked["variables"]["selector"]["jobName"])
            data: dict[str, Any] = {"launchRun": {"run": {"runId": launched[-1]}}}
        else:
            failed = asked["variables"]["id"] == "count_hours"
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


def command_of(said: list[str]) -> str:
    """Return the command that is the second thing to try."""
    return next(line for line in said if line.startswith("  2. ")).partition(": ")[2]


def typed(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as somebody types it in another terminal: another folder, and no PATH of ours."""
    return subprocess.run(
        ["bash", "-c", command],
        env={"PATH": os.defpath, "HOME": os.environ["HOME"], **environment},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def test_broken_books_are_told_on_the_terminal_and_in_the_tick(home: Path, port: int) -> None:
    """Without BUFFER_ALERT_URLS: within a minute of the proof that found them, with the rows."""
    with serving(home, port) as process:
        first_line(process)
        first_runs(process)
        with embedded_server(home) as server:
            superuser = server.url("buffer", user="postgres").render_as_string(hide_password=False)
            corrupt(
                superuser, "UPDATE buffer.wallet SET balance_minor = balance_minor + 7 WHERE wallet_id = 1"
            )
        assert end_of(port, launch(port, "reconcile_books")) == "SUCCESS"
        proved = time.monotonic()
        assert process.stdout is not None
        told = ""
        while "check" not in told:
            told = process.stdout.readline()
        seconds = time.monotonic() - proved
        rows = [process.stdout.readline() for _ in range(4)]
        logged = wait_for(lambda: logged_by(port, "failed_checks"), what="the tick's log")
        process.terminate()
        process.wait(timeout=WAIT_SECONDS_MAX)

    assert told.startswith("ALERT 2 checks failed: books_balance, wallet_equals_its_transactions")
    assert seconds < 60
    assert "books_balance of books, ERROR\n" in rows
    assert any(re.match(r"  currency PHP, ", row) for row in rows)
    assert any("2 checks failed: books_balance, wallet_equals_its_transactions" in line for line in logged)


def logged_by(port: int, sensor: str) -> list[str]:
    """Return what the log of the sensor's latest ticks says, as the UI shows it."""
    query = """query ($selector: SensorSelector!) {sensorOrError(sensorSelector: $selector) {... on Sensor {
        sensorState {ticks(limit: 20) {logEvents {events {message}}}}}}}"""
    selector = {
        "repositoryLocationName": "buffer_pipeline",
        "repositoryName": "__repository__",
        "sensorName": sensor,
    }
    ticks = ask(port, query, selector=selector)["sensorOrError"]["sensorState"]["ticks"]
    return [event["message"] for tick in ticks for event in tick["logEvents"]["events"]]


def test_what_dagster_logs_in_as_is_a_releaser_and_no_more(home: Path) -> None:
    """Its login owns its storage, is a releaser in the books, and neither an owner nor a superuser there."""
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

    assert member_of == ["buffer_releaser", "dagster"]
    assert tuple(rights) == (False, False, False, False)
    assert owns == ["dagster"]


def test_storage_of_before_becomes_dagsters_own(home: Path) -> None:
    """A BUFFER_HOME from when the books' owner had Dagster's storage too: Dagster's login finds its runs."""
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
    """A signal that comes before the UI is up stops whatever has started by then."""
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


def test_dev_ends_when_dagster_does(home: Path, port: int) -> None:
    """A webserver that dies takes the rest down with it, and the message names it."""
    with serving(home, port) as process:
        first_line(process)
        webserver = next(
            pid
            for pid in processes_of(home)
            if b"dagster_webserver" in (Path("/proc") / str(pid) / "cmdline").read_bytes()
        )
        os.kill(webserver, signal.SIGKILL)
        output, _ = process.communicate(timeout=WAIT_SECONDS_MAX)
        left_behind = processes_of(home)

    assert process.returncode == 1
    assert "Dagster: its webserver ended by itself with exit code -9" in output
    assert left_behind == []
    assert not (home / "postgres" / "postmaster.pid").exists()


def test_dev_on_a_server_of_ones_own(server: EmbeddedServer, home: Path, port: int) -> None:
    """BUFFER_DATABASE_URL is migrated and filled, and Dagster gets a second database beside it.

    The first runs count what reports begin with, by BUFFER_REPORTS_START.
    """
    name = f"own_{os.urandom(6).hex()}"
    url = server.url(name).set(drivername="postgresql")
    admin_url = server.url("postgres", user="postgres").set(drivername="postgresql").render_as_string()
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} OWNER buffer")

    books_url = url.render_as_string(hide_password=False)
    begin = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
    with serving(
        home, port, BUFFER_DATABASE_URL=books_url, BUFFER_REPORTS_START=f"{begin:%Y-%m-%d}"
    ) as process:
        started = first_line(process)
        said = first_runs(process)
        over = datetime.now(UTC)
        tried = typed(command_of(said), BUFFER_DATABASE_URL=books_url)
        process.terminate()
        code = process.wait(timeout=WAIT_SECONDS_MAX)

    with psycopg.connect(admin_url, autocommit=True) as admin:
        databases = {row[0] for row in admin.execute("SELECT datname FROM pg_database")}
    engine = make_engine(server.url(name))
    holds = held(engine)
    engine.dispose()
    assert started.startswith("Dagster UI: ")
    page = "\n".join(said)
    counted = re.search(r"^  counted (\d+) hours: ", page, re.MULTILINE)
    assert counted
    assert 0 <= (over - begin) // HOUR - int(counted[1]) <= 1
    assert re.search(r"^  reported \d{4}-\d\d-\d\d: http", page, re.MULTILINE)
    assert f"  proved the books: http://127.0.0.1:{port}/assets/books?view=checks" in said
    assert "Ask in a terminal with this BUFFER_DATABASE_URL which payments are stuck" in page
    assert (tried.returncode, tried.stderr) == (0, "")
    assert code == 0
    assert f"{name}_dagster" in databases
    assert holds == SAMPLE_HOLDS
    assert not (home / "postgres").exists()


@pytest.mark.usefixtures("environment")
def test_dev_by_a_releasers_login(server: EmbeddedServer, home: Path, port: int) -> None:
    """On books that their owner has migrated, BUFFER_DATABASE_URL may name a releaser, who releases."""
    storage = server.dagster_url.set(drivername="postgresql").render_as_string()

    with serving(home, port, sample=False, BUFFER_DAGSTER_DATABASE_URL=storage) as process:
        started = first_line(process)
        logins = logins_of(home)
        repository(port)
        status = end_of(port, launch_release(port))
        process.terminate()
        code = process.wait(timeout=WAIT_SECONDS_MAX)

    assert started.startswith("Dagster UI: ")
    assert logins == {"dagster"}
    assert status == "SUCCESS"
    assert code == 0


def test_a_database_that_may_not_be_created_is_named(
    server: EmbeddedServer, database_url: str, home: Path, port: int
) -> None:
    """Without the right to create a database, the message names the setting that avoids it."""
    role = f"plain_{os.urandom(6).hex()}"
    admin_url = server.url("postgres", user="postgres").set(drivername="postgresql").render_as_string()
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN")
    url = make_url(database_url).set(username=role).render_as_string(hide_password=False)

    with pytest.raises(PaymentBufferError, match="BUFFER_DAGSTER_DATABASE_URL") as refusal:
        serve(Settings(home=home, database_url=url), port=port, sample=True)

    assert "\n" not in str(refusal.value)


def test_an_unreachable_dagster_database_is_named(database_url: str, home: Path, port: int) -> None:
    """Dagster is not started on a storage that nobody answers at."""
    settings = Settings(
        home=home,
        database_url=database_url,
        dagster_database_url="postgresql://nobody@127.0.0.1:1/dagster",
    )

    with pytest.raises(SettingError, match=r"^BUFFER_DAGSTER_DATABASE_URL: "):
        serve(settings, port=port, sample=False)

    assert not (home / "dagster").exists()


def test_a_taken_port_is_refused_before_anything_starts(home: Path) -> None:
    """The message names the port, and no database was touched."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(PaymentBufferError, match=f"^port {port}: Address already in use"):
            serve(Settings(home=home), port=port, sample=True)

    assert not home.exists()
