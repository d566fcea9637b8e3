"""The way to PostgreSQL: engines, statements from `sql/`, the clock, migrations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any, Final, cast

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.errors import CheckViolation, NumericValueOutOfRange
from psycopg.postgres import register_default_adapters
from psycopg.pq import Format, TransactionStatus
from psycopg.rows import dict_row
from psycopg.types.array import register_all_arrays
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, ProgrammingError
from sqlalchemy.sql.elements import TextClause

from buffer_pipeline.errors import PaymentBufferError, SettingError, WalletFull
from buffer_pipeline.settings import Settings
from buffer_pipeline.tables import SCHEMA

AnyConnection = Connection | psycopg.Connection[Any]
"""What a verb takes: SQLAlchemy's connection, or the psycopg one that the caller has open."""

Row = Mapping[Any, Any]
"""One row of an answer, by column name."""

REVISION: Final = "0014"
"""The migration that this code is written for; a test compares it with the newest file."""

INSTALL_A_NEWER_VERSION: Final = "install the version of buffer-pipeline that migrated them, or a newer one"
"""What to do about books that are at a later revision."""

_NOT_THERE: Final = {"42P01", "3F000"}
"""No such table, no such schema."""

OLDEST_SERVER: Final = 150000

_ADAPTERS: Final = AdaptersMap(types=psycopg.adapters.types)
register_default_adapters(_ADAPTERS)
register_all_arrays(_ADAPTERS)

_LOADERS: Final = [
    (name, oid, _ADAPTERS.get_loader(oid, Format.TEXT))
    for name, oid in (
        (name, psycopg.adapters.types.get_oid(name))
        for name in ("timestamptz", "text", "int8", "numeric", "int2", "bool", "text[]", "int8[]")
    )
]
"""psycopg's own loaders of the types that the statements of a verb return."""

CONNECTIONS_MAX: Final = 80
"""Connections of one engine at a time: 64 workers of a release, and those that look on."""

_CONNECTIONS_KEPT: Final = 5

_LIMITS: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
"""libpq parameters. All are in seconds, except `tcp_user_timeout`, in milliseconds.

A machine that loses power closes no connection. Without these limits its clients wait for 15 minutes or more.
A server process that hangs on a machine that works still answers TCP: only connecting to it ends.
"""

_SETTINGS: Final = (
    "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'; SET LOCAL search_path = pg_catalog, pg_temp"
)
"""What begins each transaction of an engine of the pipeline's own, in one message."""


def statement_text(name: str) -> str:
    """Return `sql/<name>.sql` as it stands."""
    return (resources.files("buffer_pipeline") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


@cache
def _statement(name: str) -> TextClause:
    return text(statement_text(name))


@cache
def _pyformat(name: str) -> str:
    return str(_statement(name).compile(dialect=PGDialect_psycopg()))  # type: ignore[no-untyped-call]


class _Cursor(psycopg.Cursor[Row]):
    """A cursor as psycopg has it, whatever cursors, rows and types the caller's connection has."""

    @property
    def adapters(self) -> AdaptersMap:
        """psycopg's own: a caller may have times loaded as naive ones (Django with USE_TZ off)."""
        return _ADAPTERS


def fetch(connection: AnyConnection, name: str, **parameters: object) -> Sequence[Row]:
    """Run the statement `sql/<name>.sql` in the caller's transaction and return its rows.

    Raises:
        PaymentBufferError: the connection would commit each statement by itself, or its answers could not
            be read; the message says what to set.
    """
    if isinstance(connection, psycopg.Connection):
        _require_transaction(connection)
        _require_answers_as_expected(connection)
        with _Cursor(connection, row_factory=dict_row) as cursor:
            cursor.execute(_pyformat(name), parameters, prepare=False)
            return cursor.fetchall()
    driver_connection = connection.connection.driver_connection
    _require_transaction(driver_connection)
    _require_answers_as_expected(driver_connection)
    _require_own_loaders(driver_connection)
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
def savepoint(connection: AnyConnection) -> Iterator[None]:
    """Undo what an error broke off, so that the caller's transaction, which has begun, can go on."""
    if isinstance(connection, psycopg.Connection):
        with connection.transaction():
            yield
    else:
        with connection.begin_nested():
            yield


def is_beyond_a_bigint(error: DBAPIError | psycopg.Error) -> bool:
    """Return True if the error is a bigint overflow or a violation of wallet_fits_a_bigint."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, NumericValueOutOfRange) or (
        isinstance(cause, CheckViolation) and cause.diag.constraint_name == "wallet_fits_a_bigint"
    )


@contextmanager
def room_or_refusal(
    connection: AnyConnection, wallet: str, *, hold_id: int | None = None, backjob_id: int | None = None
) -> Iterator[None]:
    """Undo what a wallet has no room for.

    Raises:
        WalletFull: in place of the database's error; the message begins with `wallet`, the ids are its own.
    """
    try:
        with savepoint(connection):
            yield
    except (DBAPIError, psycopg.Error) as error:
        if not is_beyond_a_bigint(error):
            raise
        raise WalletFull(
            f"{wallet} cannot take so much more", hold_id=hold_id, backjob_id=backjob_id
        ) from None


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


def _require_answers_as_expected(connection: Any) -> None:
    # What the server has reported of itself; the driver keeps it, so that nothing is asked.
    if not isinstance(connection, psycopg.Connection):
        raise PaymentBufferError(
            f"connection: on {type(connection).__module__}; the driver must be psycopg 3"
        )
    reported = connection.pgconn.parameter_status
    if reported(b"server_encoding") == b"SQL_ASCII":
        raise _unreadable(connection, "server_encoding", "UTF8")
    if (reported(b"client_encoding") or b"UTF8") != b"UTF8":
        raise _unreadable(connection, "client_encoding", "UTF8")
    if not (reported(b"DateStyle") or b"ISO").startswith(b"ISO"):
        raise _unreadable(connection, "DateStyle", "ISO")


def _unreadable(connection: psycopg.Connection[Any], parameter: str, needed: str) -> PaymentBufferError:
    found = connection.info.parameter_status(parameter)
    return PaymentBufferError(f"connection: {parameter} is {found}; the books need {needed}")


def _require_own_loaders(connection: Any) -> None:
    # SQLAlchemy has cursors of its own, which load as the connection does.
    loader_of = connection.adapters.get_loader
    for type_name, oid, loader in _LOADERS:
        if (found := loader_of(oid, Format.TEXT)) is not loader:
            raise PaymentBufferError(
                f"connection: its {type_name} is loaded by {found.__name__}, which a SQLAlchemy connection"
                " passes on; leave psycopg's own loader, or call on the psycopg connection"
            )


def database_clock(connection: AnyConnection) -> datetime:
    """Return the database's clock, timezone-aware."""
    now = fetch(connection, "clock")[0]["now"]
    assert isinstance(now, datetime)
    return now


def confirm(connection: AnyConnection) -> None:
    """Make the commit of the caller's transaction wait for a synchronous standby, though it only reads.

    What the transaction has read is then on the standby too. A verb needs no such call.
    """
    fetch(connection, "confirm")


def psycopg_url(url: str) -> URL:
    """Return `url` with the driver of the books, psycopg 3, spelled out."""
    return make_url(url.replace("postgres://", "postgresql://", 1)).set(drivername="postgresql+psycopg")


def with_limits(url: URL) -> URL:
    """Return the URL with parameters that end connections to a machine that is gone within a minute.

    Parameters that the URL has already are kept; those of a service file and of the environment, such as
    PGCONNECT_TIMEOUT, are overridden.
    """
    missing = {name: value for name, value in _LIMITS.items() if name not in url.query}
    return url.update_query_dict(missing)


def make_engine(url: URL | str, *, synchronous_commit: bool = True) -> Engine:
    """Return an engine whose transactions speak UTC and find nothing by a bare name but PostgreSQL's own.

    Nothing is set for longer than a transaction, so that a pooler may give each another session. A
    connection to a machine that is gone ends within a minute.

    Without `synchronous_commit` a commit returns before it is on the disk: a crash of the server may
    lose the last ones, each whole.
    """
    engine = create_engine(
        with_limits(psycopg_url(url) if isinstance(url, str) else url),
        pool_pre_ping=True,
        pool_size=_CONNECTIONS_KEPT,
        max_overflow=CONNECTIONS_MAX - _CONNECTIONS_KEPT,
        connect_args={
            "application_name": "buffer-pipeline",
            "client_encoding": "UTF8",
            # A prepared statement's plan forgets how many holds a batch has, and a pooler's next session
            # does not have the statement.
            "prepare_threshold": None,
        },
    )
    settings = _SETTINGS if synchronous_commit else f"{_SETTINGS}; SET LOCAL synchronous_commit = off"

    @event.listens_for(engine, "begin")
    def set_up(connection: Connection) -> None:
        driver_connection: Any = connection.connection.driver_connection
        # In autocommit there is no transaction to set anything for.
        if not driver_connection.autocommit:
            connection.exec_driver_sql(settings)

    return engine


def _say_nothing(_text: str) -> None:
    pass


@contextmanager
def open_database(
    settings: Settings,
    *,
    migrated: bool = True,
    answering: bool = True,
    make: bool = False,
    say: Callable[[str], None] = _say_nothing,
) -> Iterator[Engine]:
    """Yield an engine on the books: at BUFFER_DATABASE_URL, or on the embedded server.

    The embedded server is started when none runs, joined when one does, and its books are brought
    up to date. It gets books only where they are to be made (`make`): a wrong folder would look like
    books that have nothing. `say` is told, in a sentence, of books that were made or brought up to date.
    A server of your own is never migrated here. Without `answering` it is not even contacted.

    Raises:
        SettingError: nobody answers at BUFFER_DATABASE_URL, or it is unset and there are no books in
            BUFFER_HOME, or the `embedded` extra is not installed.
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

    from buffer_pipeline.embedded import embedded_server, no_books  # noqa: PLC0415 - an optional extra

    with embedded_server(settings.home, make=make) as server:
        engine = make_engine(server.books_url)
        try:
            # The server may have been left before it got any.
            if not make and books_revision(engine) is None:
                raise no_books(settings.home)
            bring_up_to_date(engine, where=str(settings.home.resolve()), say=say)
            yield engine
        finally:
            engine.dispose()


def _require_usable(engine: Engine, *, migrated: bool) -> None:
    try:
        with engine.connect() as connection:
            version = connection.scalar(text("SELECT current_setting('server_version_num')::int"))
            _require_answers_as_expected(connection.connection.driver_connection)
    except DBAPIError as error:
        raise SettingError(f"BUFFER_DATABASE_URL: {first_line(error)}") from None
    except (ArgumentError, UnicodeError, TypeError, ValueError):
        # Of SQLAlchemy, a resolver or psycopg, in words that may repeat a part of the URL.
        raise SettingError("BUFFER_DATABASE_URL: a part of it cannot be used to connect") from None
    if version < OLDEST_SERVER:
        raise SettingError(f"BUFFER_DATABASE_URL: needs PostgreSQL 15 or newer, found {version}")
    if migrated and (found := books_revision(engine)) != REVISION:
        _refuse_newer(found)
        raise PaymentBufferError(
            f"books: at revision {found or 'none'}, this version needs {REVISION};"
            " run `buffer-pipeline migrate`"
        )


def _refuse_newer(found: str | None) -> None:
    if found is not None and found > REVISION:
        raise PaymentBufferError(
            f"books: at revision {found}, this version needs {REVISION}; {INSTALL_A_NEWER_VERSION}"
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


def bring_up_to_date(engine: Engine, *, where: str, say: Callable[[str], None]) -> None:
    """Bring the books to this code's revision, or make them, and say so. Safe to run again."""
    found = books_revision(engine)
    if found == REVISION:
        return
    migrate(engine)
    if found is None:
        say(f"Made new books in {where}.")
    else:
        say(f"Brought the books in {where} from revision {found} to {REVISION}.")


def migrate(engine: Engine, revision: str = "head") -> None:
    """Bring the books to a revision; "base" takes everything down. Two processes may.

    Raises:
        PaymentBufferError: the books are at a revision that this code does not know.
    """
    _refuse_newer(books_revision(engine))
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
