"""A real PostgreSQL for every test: one server a session, one migrated database a test."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import dagster as dg
import pytest
from hypothesis import settings
from sqlalchemy import Connection, Engine, text

from buffer_pipeline.database import make_engine, migrate
from buffer_pipeline.embedded import DAGSTER, EmbeddedServer, embedded_server
from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline_tests.cluster import new_cluster
from buffer_pipeline_tests.memory import use_memory

use_memory()

POSTGRESQL_15: Final = Path("/usr/lib/postgresql/15/bin")
"""Where Debian's package puts it."""

# `--hypothesis-profile=long`: a hundred times as many examples of each property.
settings.register_profile("long", max_examples=10_000)

LONGEST: Final = (
    "test_compose.py",
    "test_machine.py",
    "test_races.py",
    "test_crashes.py",
    "test_browser.py",
    "test_dev.py",
    "test_stress.py",
    "test_failover.py",
    "test_replicated.py",
)
"""Files that take a minute and more: begun first, so that none is left over while others wait for it."""

DEPLOYMENTS: Final = frozenset({"test_compose.py", "test_failover.py"})
"""Files that run a machine's worth of containers or servers: by name, or with `--everything`."""

DAGSTERS: Final = frozenset({"instance", "lasting_instance", "environment"})
"""The fixtures of a test that runs something of Dagster's."""

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
"""When the tests' first holds begin."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the version of the session's server, and whether the deployments are run."""
    parser.addoption(
        "--postgresql",
        choices=["18", "15"],
        default="18",
        help="the session's server: 18 comes in a wheel; on 15, Debian's, only what uses this server is run",
    )
    parser.addoption(
        "--everything",
        action="store_true",
        help="containers by a real engine, and nodes that fail, too: fifteen minutes more",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest files first. Leave out deployments that nobody asked for, and on 15 what would be the
    same on 18 or has both by itself.
    """
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items:
        if not DAGSTERS.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("dagster")
    if config.getoption("postgresql") == "15":
        others = [item for item in items if "server" not in getattr(item, "fixturenames", ())]
        _leave_out(others, config, items)
    if not config.getoption("everything"):
        asked_for = {Path(argument.partition("::")[0]).name for argument in config.args}
        _leave_out([item for item in items if item.path.name in DEPLOYMENTS - asked_for], config, items)


def _leave_out(others: list[pytest.Item], config: pytest.Config, items: list[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> None:
    for name in [name for name in os.environ if name.startswith("BUFFER_")]:
        del os.environ[name]


@pytest.fixture(scope="module", autouse=True)
def _no_settings_left(_no_settings_from_outside: None) -> Iterator[None]:
    """No file of tests leaves a setting in the environment to those behind it."""
    yield
    left = sorted(name for name in os.environ if name.startswith(("BUFFER_", "DAGSTER_HOME")))
    assert left == []


@contextmanager
def _home_of_server() -> Iterator[Path]:
    if kept := os.environ.get("TESTS_HOME"):
        yield Path(kept)
        return
    # Not in pytest's own folder: another run of pytest would lock the server, which is another
    # user's where root runs the tests, out of it.
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "home"


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """The session's server, with a migrated database to copy from; that of TESTS_HOME, which others share."""
    if request.config.getoption("postgresql") == "15":
        yield request.getfixturevalue("server_15")
        return
    with _home_of_server() as home, embedded_server(home) as running:
        admin = make_engine(running.url("postgres", user="postgres"))
        with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # Processes are killed here, never the machine; and dropping a database is a checkpoint.
            for setting in ("fsync = off", "full_page_writes = off", "max_wal_size = '512MB'"):
                connection.execute(text(f"ALTER SYSTEM SET {setting}"))
            connection.execute(text("SELECT pg_reload_conf()"))
        admin.dispose()
        engine = make_engine(running.books_url)
        migrate(engine)
        engine.dispose()
        yield running


@pytest.fixture(scope="session")
def server_15() -> Iterator[EmbeddedServer]:
    """A server of the oldest version that is served, with a migrated database to copy from."""
    if not (POSTGRESQL_15 / "initdb").exists():
        reason = f"no PostgreSQL 15 in {POSTGRESQL_15}; Debian's package is postgresql-15"
        if os.environ.get("REQUIRE_POSTGRESQL_15"):
            pytest.fail(reason)
        pytest.skip(reason)
    # Debian's package has made a user for it.
    user = "postgres" if os.geteuid() == 0 else None
    with new_cluster(POSTGRESQL_15, user=user) as cluster:
        yield cluster.server


@pytest.fixture(scope="session")
def programs_and_user(server: EmbeddedServer) -> tuple[Path, str | None]:
    """The session's server's programs, and who runs them: nobody in particular, where that is not root."""
    admin = make_engine(server.url("postgres", user="postgres"))
    with admin.connect() as connection:
        data = Path(connection.scalar(text("SHOW data_directory")) or "")
        programs = connection.scalar(text("SELECT setting FROM pg_config WHERE name = 'BINDIR'"))
    admin.dispose()
    return Path(programs or ""), data.owner() if os.geteuid() == 0 else None


@contextmanager
def fresh_books(server: EmbeddedServer, template: str = "buffer") -> Iterator[str]:
    """Yield the URL of a copy of the server's migrated books, or of others; dropped at the end."""
    name = f"books_{os.urandom(6).hex()}"
    admin = make_engine(server.url("postgres", user="postgres")).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template} OWNER buffer"))
    yield server.url(name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


ROLES: Final = ("platform", "releaser", "reader")
"""Those of docs/roles.md beside the owner, without the prefix that their names have."""


@dataclass
class Books:
    """Fresh books, and an engine on them for each role and for their owner."""

    owner: Engine
    platform: Engine
    releaser: Engine
    reader: Engine

    def of(self, role: str) -> Engine:
        """Return the role's engine."""
        engine: Engine = getattr(self, role)
        return engine


@pytest.fixture(scope="module", params=["18", "15"])
def served(request: pytest.FixtureRequest) -> EmbeddedServer:
    """The newest and the oldest server, each with a login for each role."""
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
    """Fresh books and their four roles."""
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
    """The same books, for a test that corrupts them."""
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
    """A BUFFER_HOME of the test's own."""
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
    """The books are those that BUFFER_DATABASE_URL names, for Dagster: by a releaser's login."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", database_url.replace("//buffer@", f"//{DAGSTER}@"))


@pytest.fixture
def this_hour() -> datetime:
    """The hour that is not over yet, and will not be before a test ends."""
    now = datetime.now(UTC)
    left = hour_of(now) + HOUR - now
    if left < timedelta(seconds=20):
        time.sleep(left.total_seconds())
    return hour_of(datetime.now(UTC))
