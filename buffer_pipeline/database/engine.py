"""Engines: the limits of a connection, and what each transaction sets."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

CONNECTIONS_MAX: Final = 80
"""Connections of one engine at a time: 64 workers of a release, and some for progress and checks."""

_CONNECTIONS_KEPT: Final = 5

_LIMITS: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
"""libpq parameters. All are in seconds, except `tcp_user_timeout`, in milliseconds.

A machine that loses power closes no connection. Without these limits, its clients wait 15 minutes or more.
If only the server process hangs, its machine still answers TCP. Then these limits end only the attempt to
connect.
"""

_SETTINGS: Final = (
    "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'; SET LOCAL search_path = pg_catalog, pg_temp"
)
"""Begins each transaction of an engine that `make_engine` made, in one message."""


def psycopg_url(url: str) -> URL:
    """Return `url` with psycopg 3 named as its driver."""
    return make_url(url.replace("postgres://", "postgresql://", 1)).set(drivername="postgresql+psycopg")


def with_limits(url: URL) -> URL:
    """Return the URL with parameters that end a connection to a dead machine within a minute.

    Parameters that the URL already has are kept. They override a service file and the environment, such as
    PGCONNECT_TIMEOUT.
    """
    missing = {name: value for name, value in _LIMITS.items() if name not in url.query}
    return url.update_query_dict(missing)


def make_engine(
    url: URL | str,
    *,
    synchronous_commit: bool = True,
    connections_kept: int = _CONNECTIONS_KEPT,
    role: str | None = None,
) -> Engine:
    """Return an engine whose transactions use UTC and a search path with only PostgreSQL's own schema.

    All settings are for one transaction, so a connection pooler may give each transaction another session.
    A connection to a dead machine ends within a minute.

    Without `synchronous_commit` a commit returns before it is on disk. A crash of the server may then lose
    the last transactions, each of them whole. `connections_kept` stay open when nobody uses them. Each
    transaction begins in the database's `role`, if one is given.
    """
    engine = create_engine(
        with_limits(psycopg_url(url) if isinstance(url, str) else url),
        pool_pre_ping=True,
        pool_size=connections_kept,
        max_overflow=CONNECTIONS_MAX - connections_kept,
        connect_args={
            "application_name": "buffer-pipeline",
            "client_encoding": "UTF8",
            # No prepared statements: their generic plan ignores how many holds a batch has, and the next
            # session of a pooler does not have them.
            "prepare_threshold": None,
        },
    )
    settings = _SETTINGS if synchronous_commit else f"{_SETTINGS}; SET LOCAL synchronous_commit = off"
    if role is not None:
        settings += f'; SET LOCAL ROLE "{role}"'

    @event.listens_for(engine, "begin")
    def set_up(connection: Connection) -> None:
        driver_connection: Any = connection.connection.driver_connection
        # In autocommit there is no transaction to which the settings could apply.
        if not driver_connection.autocommit:
            connection.exec_driver_sql(settings)

    return engine


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in a transaction whose statements all see the same snapshot of the books."""
    with (
        engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
        connection.begin(),
    ):
        yield connection


def first_line(error: DBAPIError) -> str:
    """Return the first line of the database's message."""
    return (str(error.orig).strip() or type(error.orig).__name__).splitlines()[0]
