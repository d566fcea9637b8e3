"""The running services of docker-compose.yml, and requests to them."""

import os
import re
import tomllib
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from sqlalchemy import Connection
from sqlalchemy import Engine as SqlEngine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.database import make_engine
from buffer_pipeline_tests.support.compose import read_compose
from buffer_pipeline_tests.support.databases import Books
from buffer_pipeline_tests.support.engine import Engine
from buffer_pipeline_tests.support.pages import run_blocks, sections
from buffer_pipeline_tests.support.paths import ROOT
from buffer_pipeline_tests.support.stack import Seat, ask, wait_for

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
PORTS: Final = {
    "database": 5432,
    "code": 4000,
    "webserver": 3000,
    "viewer": 3000,
    "metrics": 9464,
    "proxy": 3000,
}
"""The port of each service."""
IMAGE: Final = "buffer-pipeline"
_PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

RUNS: Final = "{runsOrError {... on Runs {results {runId tags {key}}}}}"
LAUNCH: Final = """mutation {launchRun(executionParams: {mode: "default", selector: {
    repositoryLocationName: "buffer_pipeline", repositoryName: "__repository__",
    jobName: "release_pending_payments"}}) {__typename}}"""
WAIT: Final = aiohttp.ClientWSTimeout(ws_receive=30)


@dataclass(frozen=True)
class Stack:
    """All running services of the file."""

    engine: Engine
    operators: Seat = field(default_factory=lambda: Seat("127.0.0.1:3000", OPERATOR))
    viewers: Seat = field(default_factory=lambda: Seat("127.0.0.1:3001", VIEWER))

    def type_blocks(self, heading: str, blocks: slice = slice(None)) -> str:
        """Run the blocks of a section of the page; return the output of the last one."""
        chosen = [block for block in SECTIONS[heading] if block.kind == "sh"][blocks]
        assert chosen
        return run_blocks(chosen, cwd=ROOT, environment=os.environ, starter=self.engine.enter)

    def docker(self, *words: str, check: bool = True) -> str:
        """Run `docker …` and return its output."""
        return self.engine.run("docker", *words, check=check).stdout.strip()

    def containers(self) -> dict[str, str]:
        """Return the id of each service's container."""
        listed = self.docker("ps", "--all", "--format", '{{.Label "com.docker.compose.service"}} {{.ID}}')
        return dict(line.split() for line in listed.splitlines() if len(line.split()) == 2)

    def inspect(self, service: str, what: str) -> str:
        """Return the output of `docker inspect` for a service's container."""
        return self.docker("inspect", "--format", what, self.containers()[service])

    def wait_until_healthy(self) -> None:
        """Wait until each lasting service passes its health check."""
        for service in LASTING:
            wait_for(
                lambda service=service: self.inspect(service, "{{.State.Health.Status}}") == "healthy",  # type: ignore[misc]
                what=f"{service}'s health",
            )

    def address(self, service: str, network: str = "default") -> str:
        """Return a service's address in one of its networks."""
        where = f'{{{{(index .NetworkSettings.Networks "buffer_{network}").IPAddress}}}}'
        return self.inspect(service, where)

    def url(self, login: str, password: str, database: str = "buffer") -> URL:
        """Return the URL of the UI for one of the logins."""
        return URL.create(
            "postgresql+psycopg",
            username=login,
            password=password,
            host=self.address("database", "platform"),
            database=database,
        )

    def books(self, login: str, file: str | None = None) -> SqlEngine:
        """Return an engine on the books for one of the logins, with the password from its file."""
        password = (self.engine.checkout / f"deploy/secrets/{file or login}_password").read_text()
        return make_engine(self.url(login, password.strip()))

    @contextmanager
    def connected(self, login: str) -> Iterator[Connection]:
        """Yield a transaction on the books as one of the logins. No connection remains."""
        books = self.books(login)
        with books.begin() as connection:
            yield connection
        books.dispose()

    @contextmanager
    def books_of_each_login(self) -> Iterator[Books]:
        """Yield the books with an engine for each login."""
        books = Books(
            self.books("buffer", "owner"),
            platform=self.books("platform"),
            releaser=self.books("dagster"),
            reader=self.books("reader"),
            payouts=self.books("payouts"),
        )
        yield books
        for one in (books.owner, books.platform, books.releaser, books.reader, books.payouts):
            one.dispose()


@dataclass(frozen=True)
class Release:
    """A run of the job, and the due hold."""

    hold_id: int
    run_id: str
    ended: str


def start_services(engine: Engine) -> Stack:
    """Start the services as the page does, with known passwords, and wait until they are healthy."""
    secrets = engine.checkout / "deploy/secrets"
    secrets.mkdir(mode=0o700)
    for name, password in PASSWORDS.items():
        (secrets / f"{name}_password").write_text(f"{password}\n")
    answers = {"operators": OPERATOR, "viewers": VIEWER}
    (block,) = SECTIONS["Start"]
    for command in block.body.splitlines():
        seat = next((seat for seat in answers if command.partition("#")[0].strip().endswith(seat)), None)
        # `openssl passwd` asks twice.
        typed = 2 * f"{answers[seat].partition(':')[2]}\n" if seat else ""
        engine.run("bash", "-euc", command, answers=typed)
    started = Stack(engine)
    started.wait_until_healthy()
    return started


def installed_distributions(stack: Stack) -> set[str]:
    """Return the names of the distributions in the image."""
    listed = stack.docker(
        "compose", "exec", "code", "sh", "-c", "ls -d /app/.venv/lib/python*/site-packages/*"
    )
    folders = [line.rpartition("/")[2] for line in listed.splitlines() if line.endswith(".dist-info")]
    return {_name_of(folder.partition("-")[0]) for folder in folders}


def required_distributions() -> set[str]:
    """Return the names of the distributions that the package requires."""
    return {_name_of(line) for line in _PROJECT["project"]["dependencies"]}


def distributions_to_leave_out() -> set[str]:
    """Return the names of distributions that only development or the embedded server needs."""
    lines = [
        *_PROJECT["dependency-groups"]["dev"],
        *_PROJECT["project"]["optional-dependencies"]["embedded"],
    ]
    return {_name_of(line) for line in lines if not line.startswith("buffer-pipeline[")}


def _name_of(requirement: str) -> str:
    """Return a distribution's name from its folder."""
    return re.split(r"[\[<>=~! ]", requirement)[0].lower().replace("-", "_")


def login_refusal(url: URL) -> str:
    """Log in to a database; return the server's error, or an empty text."""
    database = make_engine(url)
    try:
        database.connect().close()
    except DBAPIError as error:
        return str(error)
    finally:
        database.dispose()
    return ""


def launched_by_hand(seat: Seat) -> list[str]:
    """Return the runs that no schedule and no sensor launched."""
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


SUBSCRIPTION: Final = """subscription ($run: ID!) {pipelineRunLogs(runId: $run, cursor: null) {
    ... on PipelineRunLogsSubscriptionSuccess {messages {__typename}}}}"""


async def first_messages(seat: Seat, run_id: str) -> list[str]:
    """Return the types of the first messages about a run on the UI's websocket."""
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


def addresses_of(stack: Stack, service: str) -> list[str]:
    """Return host and port of a service, by its name and by its IP address."""
    network = {"proxy": "seats"}.get(service, "default")
    return [f"{host}:{PORTS[service]}" for host in (service, stack.address(service, network))]


def addresses_reached(stack: Stack, addresses: list[str], *, network: str) -> list[str]:
    """Return the addresses that a new container in a network can connect to."""
    run = ("run", "--rm", "--network", network, "--entrypoint", "python", IMAGE, "-c", _REACH)
    return stack.docker(*run, *addresses).splitlines()


_REACH: Final = """
import socket, sys
for place in sys.argv[1:]:
    host, port = place.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
        print(place)
    except OSError:
        pass
"""
