"""A real PostgreSQL for every test: one server per session, one migrated database per test."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import dagster as dg
import pytest
from hypothesis import settings
from pytest_httpserver import HTTPServer
from sqlalchemy import Connection, Engine, text

from buffer_pipeline.cli.app import main
from buffer_pipeline.database import make_engine, migrate
from buffer_pipeline.embedded import DAGSTER, EmbeddedServer, embedded_server
from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline.orchestration import resources
from buffer_pipeline.policy import Policy
from buffer_pipeline_tests.support.cluster import new_cluster
from buffer_pipeline_tests.support.commands import Result, Run
from buffer_pipeline_tests.support.databases import ROLES, Books, fresh_books, number_books
from buffer_pipeline_tests.support.memory import use_memory
from buffer_pipeline_tests.support.receiver import Receiver
from buffer_pipeline_tests.support.scale import EVERYTHING

use_memory()

POSTGRESQL_15: Final = Path("/usr/lib/postgresql/15/bin")
"""The folder of Debian's package."""

# `--hypothesis-profile=long`: a hundred times as many examples of each property.
settings.register_profile("long", max_examples=10_000)

LONGEST: Final = (
    "test_compose.py",
    "test_machine.py",
    "test_races.py",
    "test_process_crashes.py",
    "test_server_crashes.py",
    "test_browser.py",
    "test_dev.py",
    "test_dev_on_a_server.py",
    "test_stress.py",
    "test_failover.py",
    "test_replicated.py",
)
"""Files that take a minute or more. They start first, so that none is left over at the end."""

DEPLOYMENT: Final = "deployment"
"""The folder of tests that install, start and break whole systems. They run when named, or with
`--everything`.
"""

DAGSTERS: Final = frozenset({"instance", "lasting_instance", "environment"})
"""The fixtures of tests that run Dagster."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options for the server's version and for the deployment tests."""
    parser.addoption(
        "--postgresql",
        choices=["18", "15"],
        default="18",
        help="the session's server: 18 comes in a wheel; on 15, Debian's, only what uses this server is run",
    )
    parser.addoption(
        "--everything",
        action="store_true",
        help="all rounds and cases, PostgreSQL 15 beside 18, and whole systems: containers, nodes that fail",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Pass `--everything` on to modules that read it at import."""
    if config.getoption("everything"):
        os.environ[EVERYTHING] = "1"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return one worker more than there are cores, because tests often wait for processes. A run of selected
    tests has none, because starting workers takes time.
    """
    return 0 if _is_narrowed(config) else (os.cpu_count() or 1) + 1


def _is_narrowed(config: pytest.Config) -> bool:
    return bool(config.option.keyword) or config.args_source is not pytest.Config.ArgsSource.TESTPATHS


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest files first. Skip tests that need `--everything` or a name. On 15, skip those that do
    not depend on the version or use both.
    """
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items:
        if not DAGSTERS.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("dagster")
    if config.getoption("postgresql") == "15":
        others = [item for item in items if "server" not in getattr(item, "fixturenames", ())]
        _leave_out(others, config, items)
    if not (config.getoption("everything") or _is_narrowed(config)):
        _leave_out([item for item in items if _is_for_everything(item)], config, items)


def _is_for_everything(item: pytest.Item) -> bool:
    on_15 = getattr(item, "callspec", None) is not None and item.callspec.params.get("served") == "15"  # type: ignore[attr-defined]
    return on_15 or item.path.parent.name == DEPLOYMENT


def _leave_out(others: list[pytest.Item], config: pytest.Config, items: list[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> None:
    for name in [name for name in os.environ if name.startswith("BUFFER_")]:
        del os.environ[name]


@pytest.fixture(scope="module", autouse=True)
def _no_settings_left(_no_settings_from_outside: None) -> Iterator[None]:
    """A test file leaves no setting in the environment for the next ones."""
    yield
    left = sorted(name for name in os.environ if name.startswith(("BUFFER_", "DAGSTER_HOME")))
    assert left == []


@contextmanager
def _home_of_server() -> Iterator[Path]:
    if kept := os.environ.get("TESTS_HOME"):
        yield Path(kept)
        return
    # Outside pytest's folder: another run of pytest would lock out the server's user, which differs from
    # root.
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "home"


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """The session's server with a migrated template database, or the shared one in TESTS_HOME."""
    if request.config.getoption("postgresql") == "15":
        yield request.getfixturevalue("server_15")
        return
    with _home_of_server() as home, embedded_server(home) as running:
        admin = make_engine(running.url("postgres", user="postgres"))
        with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # Tests kill processes, never the machine; and dropping a database is a checkpoint.
            for setting in ("fsync = off", "full_page_writes = off", "max_wal_size = '512MB'"):
                connection.execute(text(f"ALTER SYSTEM SET {setting}"))
            connection.execute(text("SELECT pg_reload_conf()"))
        admin.dispose()
        engine = make_engine(running.books_url)
        migrate(engine)
        engine.dispose()
        number_books(running.books_url)
        yield running


@pytest.fixture(scope="session")
def server_15() -> Iterator[EmbeddedServer]:
    """A server of the oldest supported version, with a migrated template database."""
    if not (POSTGRESQL_15 / "initdb").exists():
        reason = f"no PostgreSQL 15 in {POSTGRESQL_15}; Debian's package is postgresql-15"
        if os.environ.get("REQUIRE_POSTGRESQL_15"):
            pytest.fail(reason)
        pytest.skip(reason)
    # Debian's package has created a user for it.
    user = "postgres" if os.geteuid() == 0 else None
    with new_cluster(POSTGRESQL_15, user=user) as cluster:
        yield cluster.server


@pytest.fixture(scope="session")
def programs_and_user(server: EmbeddedServer) -> tuple[Path, str | None]:
    """The programs of the session's server, and the user who runs them, or None if not root."""
    admin = make_engine(server.url("postgres", user="postgres"))
    with admin.connect() as connection:
        data = Path(connection.scalar(text("SHOW data_directory")) or "")
        programs = connection.scalar(text("SELECT setting FROM pg_config WHERE name = 'BINDIR'"))
    admin.dispose()
    return Path(programs or ""), data.owner() if os.geteuid() == 0 else None


@pytest.fixture(scope="module", params=["18", "15"])
def served(request: pytest.FixtureRequest) -> EmbeddedServer:
    """The newest and the oldest server, with a login for each role."""
    server: EmbeddedServer = request.getfixturevalue("server" if request.param == "18" else "server_15")
    admin = make_engine(server.url("postgres", user="postgres"))
    with admin.begin() as connection:
        for role in ROLES:
            if not connection.scalar(text("SELECT to_regrole(:name)"), {"name": f"a_{role}"}):
                connection.execute(text(f"CREATE ROLE a_{role} LOGIN IN ROLE buffer_{role}"))
    admin.dispose()
    return server


@pytest.fixture
def roles(served: EmbeddedServer) -> Iterator[Books]:
    """Fresh books and an engine for each role."""
    with fresh_books(served) as url:
        owner = make_engine(url)
        books = Books(owner, *(make_engine(owner.url.set(username=f"a_{role}")) for role in ROLES))
        yield books
        for role in ("owner", *ROLES):
            books.of(role).dispose()


@pytest.fixture
def database_url(server: EmbeddedServer) -> Iterator[str]:
    """The URL of fresh, migrated books."""
    with fresh_books(server) as url:
        yield url


@pytest.fixture
def superuser_url(database_url: str) -> str:
    """The same books as superuser, for tests that corrupt them."""
    return database_url.replace("//buffer@", "//postgres@")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on fresh books."""
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def _shared_engine(server: EmbeddedServer) -> Iterator[Engine]:
    with fresh_books(server) as url:
        engine = make_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def connection(_shared_engine: Engine) -> Iterator[Connection]:
    """A connection to empty books, in a transaction that is rolled back at the end."""
    with _shared_engine.connect() as connection, connection.begin() as transaction:
        yield connection
        if transaction.is_active:
            transaction.rollback()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A BUFFER_HOME for one test."""
    return tmp_path / "home"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance in memory."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def lasting_instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance with storage on disk, as ticks and whole runs have it."""
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def environment(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets BUFFER_DATABASE_URL for Dagster, with a releaser's login."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", database_url.replace("//buffer@", f"//{DAGSTER}@"))


@pytest.fixture
def this_hour() -> datetime:
    """The current hour, which will not end before the test does."""
    now = datetime.now(UTC)
    left = hour_of(now) + HOUR - now
    if left < timedelta(seconds=20):
        time.sleep(left.total_seconds())
    return hour_of(datetime.now(UTC))


@pytest.fixture
def run(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Run the command line on fresh books, in this process."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", database_url)
    handler = signal.getsignal(signal.SIGTERM)

    def call(*arguments: str) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(list(arguments))
        captured = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return Result(code=stopped.value.code, out=captured.out, err=captured.err)

    yield call
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def receiver(httpserver: HTTPServer) -> Receiver:
    """An HTTP service that accepts every alert."""
    return Receiver(httpserver)


@pytest.fixture
def books_of(engine: Engine) -> resources.Books:
    """The books of the test. A payment is stuck in them after 72 hours."""
    return resources.Books(engine=engine, policy=Policy(stuck_after_hours=72))
