"""docker-compose.yml started by a real engine: each block of docs/compose.md as it stands, in order."""

import asyncio
import json
import os
import re
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import pytest
from packaging.version import Version
from playwright.sync_api import sync_playwright
from sqlalchemy import Engine as SqlEngine
from sqlalchemy import func, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.database import make_engine
from buffer_pipeline.hold import HoldState
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.tables import batch, hold
from buffer_pipeline_tests.builders import PAYEE, place_hold, state_of, wallet_of
from buffer_pipeline_tests.compose import ROOT, read_compose, size_bytes
from buffer_pipeline_tests.conftest import Books
from buffer_pipeline_tests.engine import Engine, engine
from buffer_pipeline_tests.pages import run_blocks, sections
from buffer_pipeline_tests.stack import (
    Seat,
    ask,
    end_of,
    hourly_release_stopped,
    launch_release,
    repository,
    wait_for,
)
from buffer_pipeline_tests.test_browser import CHROMIUM_ARGUMENTS, chromium
from buffer_pipeline_tests.test_login import webserver
from buffer_pipeline_tests.test_lost_runs import launch_one_that_waits, let_go
from buffer_pipeline_tests.test_release_runs import retry_of
from buffer_pipeline_tests.work_of_roles import do_all

pytestmark = pytest.mark.timeout(1200)
"""An image is built, and a dozen containers begin, several times."""

OPERATOR: Final = "operator-1:let me in"
VIEWER: Final = "viewer-1:let me look"
PASSWORDS: Final = {
    "postgres": "postgres-1",
    "owner": "owner-1",
    "dagster": "it's-1",
    "platform": "platform-1",
    "reader": 'a "reader" \\1',
}
SECTIONS: Final = sections("compose.md")
SERVICES: Final[dict[str, dict[str, Any]]] = read_compose()["services"]
LASTING: Final = {name for name, words in SERVICES.items() if words["restart"] != "no"}
IMAGE: Final = "buffer-pipeline"

RUNS: Final = "{runsOrError {... on Runs {results {runId tags {key}}}}}"
LAUNCH: Final = """mutation {launchRun(executionParams: {mode: "default", selector: {
    repositoryLocationName: "buffer_pipeline", repositoryName: "__repository__",
    jobName: "release_pending_payments"}}) {__typename}}"""
WAIT: Final = aiohttp.ClientWSTimeout(ws_receive=30)


@dataclass(frozen=True)
class Stack:
    """All services of the file, started."""

    engine: Engine
    operators: Seat = field(default_factory=lambda: Seat("127.0.0.1:3000", OPERATOR))
    viewers: Seat = field(default_factory=lambda: Seat("127.0.0.1:3001", VIEWER))

    def type_blocks(self, heading: str, blocks: slice = slice(None)) -> str:
        """Run the blocks of a section of the page; return what the last one prints."""
        chosen = [block for block in SECTIONS[heading] if block.kind == "sh"][blocks]
        assert chosen
        return run_blocks(chosen, cwd=ROOT, environment=os.environ, starter=self.engine.enter)

    def docker(self, *words: str, check: bool = True) -> str:
        """Run `docker …` and return what it prints."""
        return self.engine.run("docker", *words, check=check).stdout.strip()

    def containers(self) -> dict[str, str]:
        """Return the id of each service's container."""
        listed = self.docker("ps", "--all", "--format", '{{.Label "com.docker.compose.service"}} {{.ID}}')
        return dict(line.split() for line in listed.splitlines() if len(line.split()) == 2)

    def inspect(self, service: str, what: str) -> str:
        """Return what `docker inspect` has of a service's container."""
        return self.docker("inspect", "--format", what, self.containers()[service])

    def wait_until_healthy(self) -> None:
        """Wait until each service that lasts passes its health check."""
        for service in LASTING:
            wait_for(
                lambda service=service: self.inspect(service, "{{.State.Health.Status}}") == "healthy",  # type: ignore[misc]
                what=f"{service}'s health",
            )

    def address(self, service: str, network: str = "default") -> str:
        """Return a service's own address in one of its networks."""
        where = f'{{{{(index .NetworkSettings.Networks "buffer_{network}").IPAddress}}}}'
        return self.inspect(service, where)

    def url(self, login: str, password: str, database: str = "buffer") -> URL:
        """Return the URL by which somebody logs in."""
        return URL.create(
            "postgresql+psycopg",
            username=login,
            password=password,
            host=self.address("database", "platform"),
            database=database,
        )

    def books(self, login: str, file: str | None = None) -> SqlEngine:
        """Return an engine on the books for one of the logins, by the password of its file."""
        password = (self.engine.checkout / f"deploy/secrets/{file or login}_password").read_text()
        return make_engine(self.url(login, password.strip()))


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The services as the page starts them, on a machine and in a network of their own."""
    with engine() as running, running.network():
        secrets = running.checkout / "deploy/secrets"
        secrets.mkdir(mode=0o700)
        for name, password in PASSWORDS.items():
            (secrets / f"{name}_password").write_text(f"{password}\n")
        answers = {"operators": OPERATOR, "viewers": VIEWER}
        (block,) = SECTIONS["Start"]
        for command in block.body.splitlines():
            seat = next((seat for seat in answers if command.partition("#")[0].strip().endswith(seat)), None)
            # `openssl passwd` asks twice.
            typed = 2 * f"{answers[seat].partition(':')[2]}\n" if seat else ""
            running.run("bash", "-euc", command, answers=typed)
        started = Stack(running)
        started.wait_until_healthy()
        yield started


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


# ---- the image


def test_one_image_is_built_for_all(stack: Stack) -> None:
    """Once, small, without what builds or tests it, and of the version that git describes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {name_of(line) for line in project["project"]["dependencies"]}
    others = [*project["dependency-groups"]["dev"], *project["project"]["optional-dependencies"]["embedded"]]
    described = stack.engine.run("git", "describe", "--tags", "--always").stdout.strip()

    listed = stack.docker(
        "compose", "exec", "code", "sh", "-c", "ls -d /app/.venv/lib/python*/site-packages/*"
    )
    installed = {name_of(found.partition("-")[0]) for found in dist_infos(listed)}
    version = stack.docker("compose", "exec", "code", "buffer-pipeline", "--version").split()[-1]

    assert needed | {"buffer_pipeline"} <= installed
    assert {name_of(line) for line in others} & installed == set()
    assert described.rpartition("g")[2] in Version(version).public + (Version(version).local or "")
    assert stack.docker("images", "--quiet", "--filter", "dangling=true") == ""
    assert int(stack.docker("image", "inspect", "--format", "{{.Size}}", IMAGE)) < 550_000_000


def dist_infos(listed: str) -> list[str]:
    """Return the distributions of a listing of site-packages."""
    return [line.rpartition("/")[2] for line in listed.splitlines() if line.endswith(".dist-info")]


def name_of(requirement: str) -> str:
    """Return a distribution's name as its folder has it."""
    return re.split(r"[\[<>=~! ]", requirement)[0].lower().replace("-", "_")


@pytest.mark.parametrize(
    ("described", "version"),
    [
        ("0.2.0", "0.2.0"),
        ("v0.2.0", "0.2.0"),
        ("0.2.0-4-g5e6f7a8", "0.2.0+4.g5e6f7a8"),
        ("5e6f7a8", "0+g5e6f7a8"),
        ("1234567", "0+g1234567"),
    ],
)
def test_what_git_describes_is_a_version(described: str, version: str) -> None:
    """On a tag, between two tags and without one: what the Dockerfile makes of it is one of PEP 440."""
    (expression,) = re.findall(r"sed -E '([^']*)'", (ROOT / "Dockerfile").read_text(encoding="utf-8"))

    said = subprocess.run(
        ["sed", "-E", expression], input=described, capture_output=True, text=True, check=True
    )

    assert said.stdout.strip() == version
    assert str(Version(version)) == version


def test_an_image_of_no_version_is_not_built(stack: Stack) -> None:
    """Without VERSION the build ends, and says where it is asked for."""
    built = stack.engine.run("docker", "compose", "build", check=False)

    assert built.returncode != 0
    assert "VERSION" in built.stderr
    assert "docs/compose.md" in built.stderr


# ---- starting again


def test_a_second_start_changes_nothing(stack: Stack) -> None:
    """Neither `up` nor `up --build` makes a container anew where nothing has changed."""
    before = stack.containers()

    stack.type_blocks("Settings", slice(0, 1))
    once = stack.containers()
    (again,) = (line for line in SECTIONS["Start"][0].body.splitlines() if "up --build" in line)
    stack.engine.run("bash", "-euc", again)

    lasting = {name: before[name] for name in LASTING}
    assert {name: once[name] for name in LASTING} == lasting
    assert {name: stack.containers()[name] for name in LASTING} == lasting


def test_a_changed_setting_reaches_who_reads_it(stack: Stack) -> None:
    """`up` makes those services anew that read what has changed in .env, and those that wait for them."""
    before = stack.containers()
    (stack.engine.checkout / ".env").write_text("BUFFER_STUCK_AFTER_HOURS=24\n")

    stack.type_blocks("Settings", slice(0, 1))

    after = stack.containers()
    assert {name for name in LASTING if before[name] == after[name]} == {"database"}
    for service in ("code", "metrics"):
        assert "BUFFER_STUCK_AFTER_HOURS=24" in stack.inspect(service, "{{.Config.Env}}")
    stack.type_blocks("Settings", slice(1, None))
    assert stack.containers()["code"] != after["code"]
    stack.wait_until_healthy()


# ---- the seats


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
        assert f"dagster run {release.run_id}" in connection.scalars(select(batch.c.source)).all()
        assert reconcile(connection) == []
    assert "PAYMENT_RELEASED" in stack.docker("compose", "logs", "code")
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


@pytest.mark.usefixtures("release")
def test_the_pages_commands_end_well(stack: Stack) -> None:
    """Books, installation and figures are as they should be, behind the first release."""
    said = stack.type_blocks("Commands")

    assert "buffer_up 1.0" in said.splitlines()
    assert "buffer_dagster_up 1.0" in said.splitlines()


# ---- the platform, and who reaches what


def test_the_platforms_container_holds_an_earning(stack: Stack) -> None:
    """The page's command: from the network `buffer_platform`, as the platform."""
    said = stack.type_blocks("The platform and finance")

    reader = stack.books("reader")
    with reader.connect() as connection:
        held = connection.execute(select(hold.c.job).where(hold.c.reference == "job-8-done")).all()
    assert held == [("job-8",)]
    assert "is held: BUFFERED" in said
    reader.dispose()


REACH: Final = """
import socket, sys
for place in sys.argv[1:]:
    host, port = place.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
        print(place)
    except OSError:
        pass
"""


def test_a_container_of_somebody_else_reaches_the_database_at_most(stack: Stack) -> None:
    """By name and by address, from the platform's network and from one of its own."""
    ports = {
        "database": 5432,
        "code": 4000,
        "webserver": 3000,
        "viewer": 3000,
        "metrics": 9464,
        "proxy": 3000,
    }
    network = {"proxy": "seats"}
    places = {
        name: [f"{name}:{port}", f"{stack.address(name, network.get(name, 'default'))}:{port}"]
        for name, port in ports.items()
    }
    everywhere = [place for each in places.values() for place in each]
    try:
        stack.docker("network", "create", "elsewhere")
        reached = {
            name: stack.docker(
                *("run", "--rm", "--network", name, "--entrypoint", "python", IMAGE, "-c", REACH),
                *(*everywhere, f"{stack.address('database', 'platform')}:5432"),
            ).splitlines()
            for name in ("buffer_platform", "elsewhere", "buffer_default")
        }
    finally:
        stack.docker("network", "rm", "elsewhere")

    assert reached["buffer_platform"] == ["database:5432", f"{stack.address('database', 'platform')}:5432"]
    assert reached["elsewhere"] == []
    # What the page says not to do, and that these places are reached from somewhere.
    assert set(places["webserver"]) <= set(reached["buffer_default"])


def test_each_login_has_its_password_and_does_its_work(stack: Stack) -> None:
    """The passwords are those of the files, quotes and all; each login's rights are enough, and no more."""
    everybody = {"buffer": "owner", **{name: name for name in PASSWORDS if name != "owner"}}
    for login, file in everybody.items():
        url = stack.url(login, PASSWORDS[file])
        for given, is_in in ((url, True), (url.set(password="before"), False)):
            one = make_engine(given)
            if is_in:
                one.connect().close()
            else:
                with pytest.raises(DBAPIError, match="password authentication failed"):
                    one.connect()
            one.dispose()
    for login in ("platform", "reader"):
        stranger = make_engine(stack.url(login, PASSWORDS[login], "buffer_dagster"))
        with pytest.raises(DBAPIError, match="permission denied for database"):
            stranger.connect()
        stranger.dispose()
    books = Books(
        stack.books("buffer", "owner"),
        platform=stack.books("platform"),
        releaser=stack.books("dagster"),
        reader=stack.books("reader"),
    )

    do_all(books)

    with books.owner.connect() as connection:
        powerful = connection.scalars(
            text("SELECT rolname FROM pg_roles WHERE rolsuper OR rolcreaterole OR rolcreatedb")
        )
        assert powerful.all() == ["postgres"]
    for one in (books.owner, books.platform, books.releaser, books.reader):
        one.dispose()


# ---- how they run


@pytest.mark.parametrize("name", sorted(LASTING - {"database"}))
def test_the_root_file_system_is_read_only(stack: Stack, name: str) -> None:
    """A service that runs can write into its scratch space, and has run without writing anywhere else."""
    files = ["/new", "/run/secrets/new", "/tmp/new"]

    written = [
        stack.engine.run("docker", "compose", "exec", name, "touch", file, check=False).returncode == 0
        for file in files
    ]

    assert written == [False, False, True]


def test_no_secret_is_in_a_log_or_shown_by_inspect(stack: Stack) -> None:
    """No service has printed a password, and none stands in what `docker inspect` shows."""
    passwords = {*PASSWORDS.values(), *(login.split(":")[1] for login in (OPERATOR, VIEWER))}
    shown = stack.docker("compose", "logs") + stack.docker("inspect", *stack.containers().values())

    # "owner-1" and so on are no words of anything else.
    written = {password: {password, json.dumps(password)[1:-1]} for password in passwords}
    assert [password for password, forms in written.items() if any(form in shown for form in forms)] == []
    assert len(passwords) == 7


def test_each_service_has_room_in_its_limit(stack: Stack) -> None:
    """The limits are enforced, and what each service takes is below half of its memory."""
    shown = stack.docker("stats", "--no-stream", "--format", "{{json .}}")
    taken = {line["Name"]: float(line["MemPerc"].rstrip("%")) for line in map(json.loads, shown.splitlines())}
    limits = {
        name: (
            size_bytes(SERVICES[name]["deploy"]["resources"]["limits"]["memory"]),
            int(stack.inspect(name, "{{.HostConfig.Memory}}")),
        )
        for name in LASTING
    }

    assert all(asked == given for asked, given in limits.values())
    assert len(taken) == len(LASTING)
    assert {name: share for name, share in taken.items() if share > 50} == {}


def test_a_webserver_that_is_down_comes_back(stack: Stack) -> None:
    """Its seat answers 502 and the other one goes on; started again, it is found again."""
    stack.docker("compose", "stop", "viewer")
    down = (status(stack.viewers, "/"), status(stack.operators, "/"))

    stack.docker("compose", "start", "viewer")
    stack.wait_until_healthy()

    assert down == (502, 200)
    assert status(stack.viewers, "/server_info") == 200


def test_a_run_that_loses_its_container_is_made_up_for(stack: Stack) -> None:
    """Killed with its container in the middle of a batch, a run is failed once that is back, and retried; the
    release behind it is not kept waiting.
    """
    owner = stack.books("buffer", "owner")
    with (
        owner.connect() as blocker,
        owner.connect() as watcher,
        hourly_release_stopped(stack.operators),
    ):
        lost = launch_one_that_waits(stack.operators, owner, blocker, watcher)
        behind = launch_release(stack.operators)
        stack.docker("kill", "buffer-code-1")
        let_go(blocker, watcher)

        began = time.monotonic()
        stack.docker("compose", "up", "--detach")
        ended = end_of(stack.operators, lost)
        retry = wait_for(lambda: retry_of(stack.operators, lost), what="the retry")
        ended_behind = [end_of(stack.operators, run_id) for run_id in (retry, behind)]
        seconds = time.monotonic() - began
        print(f"made up for after {seconds:.0f} seconds")

    assert seconds < 120
    assert (ended, ended_behind) == ("FAILURE", ["SUCCESS", "SUCCESS"])
    with owner.connect() as connection:
        assert reconcile(connection) == []
    owner.dispose()


# ---- what an operator does now and then; the last one ends it all


def test_a_password_is_changed(stack: Stack) -> None:
    """The page's commands: the new one is in force, the old one is not, and all services are there."""
    stack.type_blocks("Secrets")
    stack.wait_until_healthy()

    stack.books("dagster").connect().close()
    with pytest.raises(DBAPIError, match="password authentication failed"):
        make_engine(stack.url("dagster", PASSWORDS["dagster"])).connect()
    assert repository(stack.operators)["schedules"]


def test_a_new_version_and_back_to_the_dump(stack: Stack) -> None:
    """What was written behind the dump is gone, and the books are as they were, sealed history too."""
    with (stack.engine.checkout / "README.md").open("a") as page:
        page.write("\nOf another version.\n")
    before = stack.containers()

    said = stack.type_blocks("A new version")
    stack.wait_until_healthy()

    assert Version(said.split()[-1]).local
    assert {name for name in LASTING if before[name] == stack.containers()[name]} == {"database"}
    platform, reader = stack.books("platform"), stack.books("reader")
    with reader.connect() as connection:
        holds = connection.scalar(select(func.count()).select_from(hold))
    with platform.begin() as connection:
        place_hold(connection, reference="behind-the-dump", job="job-9")
    for one in (platform, reader):
        one.dispose()

    stack.type_blocks("Back to the dump")
    stack.wait_until_healthy()

    reader = stack.books("reader")
    with reader.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(hold)) == holds
        assert reconcile(connection) == []
    reader.dispose()


def test_down_keeps_the_books_and_leaves_nothing_else(stack: Stack) -> None:
    """Each service ends by itself within its grace period; what is left is the two volumes with a name."""
    stack.type_blocks("Down")

    assert stack.docker("ps", "--all", "--quiet") == ""
    assert sorted(stack.docker("volume", "ls", "--quiet").split()) == ["buffer_books", "buffer_dagster"]
    assert stack.docker("network", "ls", "--quiet", "--filter", "name=buffer_") == ""
