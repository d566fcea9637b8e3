"""The way to PostgreSQL: engines, statements from `sql/`, the clock, migrations."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any, Final, cast

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg.types.datetime import TimestamptzLoader
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, ProgrammingError
from sqlalchemy.sql.elements import TextClause

from buffer_pipeline.errors import PaymentBufferError, SettingError
from buffer_pipeline.settings import Settings
from buffer_pipeline.tables import SCHEMA

AnyConnection = Connection | psycopg.Connection[Any]
"""What a verb takes: SQLAlchemy's connection, or the psycopg one that the caller has open."""

Row = Mapping[Any, Any]
"""One row of an answer, by column name."""

REVISION: Final = "0010"
"""The migration that this code is written for; a test compares it with the newest file."""

_NOT_THERE: Final = {"42P01", "3F000"}
"""No such table, no such schema."""

OLDEST_SERVER: Final = 150000

CONNECTIONS_MAX: Final = 80
"""Connections of one engine at a time: 64 workers of a release, and those that look on."""

_CONNECTIONS_KEPT: Final = 5


def statement_text(name: str) -> str:
    """Return `sql/<name>.sql` as it stands."""
    return (resources.files("buffer_pipeline") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


@cache
def _statement(name: str) -> TextClause:
    return text(statement_text(name))


@cache
def _pyformat(name: str) -> str:
    return str(_statement(name).compile(dialect=PGDialect_psycopg()))  # type: ignore[no-untyped-call]


def fetch(connection: AnyConnection, name: str, **parameters: object) -> Sequence[Row]:
    """Run the statement `sql/<name>.sql` in the caller's transaction and return its rows.

    Raises:
        PaymentBufferError: the connection would commit each statement by itself.
    """
    if isinstance(connection, psycopg.Connection):
        _require_transaction(connection)
        with connection.cursor(row_factory=dict_row) as cursor:
            # Whatever the caller has its own times loaded as (Django with USE_TZ off: naive).
            cursor.adapters.register_loader("timestamptz", TimestamptzLoader)
            cursor.execute(_pyformat(name), parameters, prepare=False)
            return cursor.fetchall()
    _require_transaction(connection.connection.driver_connection)
    return connection.execute(_statement(name), parameters).mappings().all()


def array_text(values: Sequence[str] | Sequence[int] | Sequence[datetime]) -> str:
    """Return values of one type as PostgreSQL writes an array, for a statement that casts it.

    The driver would make the same of a list, value by value and ten times as slowly.
    """
    if not values:
        return "{}"
    if isinstance(values[0], str):
        texts = cast(Sequence[str], values)
        joined = "".join(texts)
        if '"' in joined or "\\" in joined:
            texts = [item.replace("\\", "\\\\").replace('"', '\\"') for item in texts]
        return '{"' + '","'.join(texts) + '"}'
    if isinstance(values[0], datetime):
        return "{" + ",".join([value.isoformat() for value in cast(Sequence[datetime], values)]) + "}"
    return "{" + ",".join(map(str, values)) + "}"


@contextmanager
def one_moment(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in a transaction whose statements all see the books as they are at one moment."""
    with (
        engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
        connection.begin(),
    ):
        yield connection


def _require_transaction(connection: Any) -> None:
    # A verb is a few statements that stand or fall together.
    if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        raise PaymentBufferError(
            "connection: in autocommit and outside a transaction; begin one first,"
            " so that the verb commits or rolls back with your own rows"
        )


def database_clock(connection: AnyConnection) -> datetime:
    """Return the database's clock, timezone-aware."""
    now = fetch(connection, "clock")[0]["now"]
    assert isinstance(now, datetime)
    return now


def psycopg_url(url: str) -> URL:
    """Return `url` with the driver of the books, psycopg 3, spelled out."""
    return make_url(url.replace("postgres://", "postgresql://", 1)).set(drivername="postgresql+psycopg")


def make_engine(url: URL | str, *, synchronous_commit: bool = True) -> Engine:
    """Return an engine whose sessions speak UTC and find nothing by a bare name but PostgreSQL's own.

    Without `synchronous_commit` a commit returns before it is on the disk: a crash of the server may
    lose the last ones, each whole.
    """
    options = "-c timezone=UTC -c search_path=pg_catalog,pg_temp"
    if not synchronous_commit:
        options += " -c synchronous_commit=off"
    return create_engine(
        psycopg_url(url) if isinstance(url, str) else url,
        pool_pre_ping=True,
        pool_size=_CONNECTIONS_KEPT,
        max_overflow=CONNECTIONS_MAX - _CONNECTIONS_KEPT,
        connect_args={
            "application_name": "buffer-pipeline",
            "options": options,
            # A prepared statement's plan forgets how many holds a batch has.
            "prepare_threshold": None,
        },
    )


@contextmanager
def open_database(settings: Settings, *, migrated: bool = True, answering: bool = True) -> Iterator[Engine]:
    """Yield an engine on the books: at BUFFER_DATABASE_URL, or on the embedded server.

    The embedded server is started when none runs, joined when one does, and brought up to
    date. A server of your own is only looked at: migrating it is a decision (`migrate`); and not
    even that unless it is to be `answering`, for who is to tell of its absence.

    Raises:
        SettingError: nobody answers at BUFFER_DATABASE_URL, or it is unset and the
            `embedded` extra is not installed.
        PaymentBufferError: the books there are not at this code's revision.
    """
    if settings.database_url is not None:
        try:
            engine = make_engine(settings.database_url)
        except ArgumentError:
            raise SettingError("BUFFER_DATABASE_URL: its query has something that cannot be used") from None
        try:
            if answering:
                _require_usable(engine, migrated=migrated)
            yield engine
        finally:
            engine.dispose()
        return

    from buffer_pipeline.embedded import embedded_server  # noqa: PLC0415 - an optional extra

    with embedded_server(settings.home) as server:
        engine = make_engine(server.books_url)
        try:
            if books_revision(engine) != REVISION:
                migrate(engine)
            yield engine
        finally:
            engine.dispose()


def _require_usable(engine: Engine, *, migrated: bool) -> None:
    try:
        with engine.connect() as connection:
            version = connection.scalar(text("SELECT current_setting('server_version_num')::int"))
    except DBAPIError as error:
        raise SettingError(f"BUFFER_DATABASE_URL: {first_line(error)}") from None
    except (ArgumentError, UnicodeError, TypeError, ValueError):
        # Of SQLAlchemy, a resolver or psycopg, in words that may repeat a part of the URL.
        raise SettingError("BUFFER_DATABASE_URL: a part of it cannot be used to connect") from None
    if version < OLDEST_SERVER:
        raise SettingError(f"BUFFER_DATABASE_URL: needs PostgreSQL 15 or newer, found {version}")
    if migrated and (found := books_revision(engine)) != REVISION:
        raise PaymentBufferError(
            f"books: at revision {found or 'none'}, this version needs {REVISION};"
            " run `buffer-pipeline migrate`"
        )


def first_line(error: DBAPIError) -> str:
    """Return what the database said, in one line."""
    return (str(error.orig).strip() or type(error.orig).__name__).splitlines()[0]


def books_revision(engine: Engine) -> str | None:
    """Return the migration that the books are at, None when there are none."""
    try:
        with engine.connect() as connection:
            revision: str | None = connection.scalar(
                text(f"SELECT version_num FROM {SCHEMA}.alembic_version")  # noqa: S608 - a constant
            )
            return revision
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) in _NOT_THERE:
            return None
        raise


def migrate(engine: Engine, revision: str = "head") -> None:
    """Bring the books to a revision; "base" takes everything down. Two processes may."""
    from alembic import command  # noqa: PLC0415 - slow to import, seldom needed
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "buffer_pipeline:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        if revision == "base":
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)
