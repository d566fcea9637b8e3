"""Run the statements of `sql/` on a connection of SQLAlchemy or psycopg."""

from collections.abc import Iterator, Mapping, Sequence
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
from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import TextClause

from buffer_pipeline.errors import PaymentBufferError, WalletFull

AnyConnection = Connection | psycopg.Connection[Any]
"""What a verb takes: a connection of SQLAlchemy, or of psycopg."""

Row = Mapping[Any, Any]
"""One result row, by column name."""

_ADAPTERS: Final = AdaptersMap(types=psycopg.adapters.types)
register_default_adapters(_ADAPTERS)
register_all_arrays(_ADAPTERS)

_LOADERS: Final = [
    (name, oid, _ADAPTERS.get_loader(oid, Format.TEXT))
    for name, oid in (
        (name, psycopg.adapters.types.get_oid(name))
        for name in (
            "timestamptz",
            "text",
            "int8",
            "numeric",
            "int2",
            "bool",
            "text[]",
            "int8[]",
            "timestamptz[]",
        )
    )
]
"""psycopg's own loaders for the types that the verbs' statements return."""


def statement_text(name: str) -> str:
    """Return the text of `sql/<name>.sql`."""
    return (resources.files("buffer_pipeline") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


@cache
def _statement(name: str) -> TextClause:
    return text(statement_text(name))


@cache
def _pyformat(name: str) -> str:
    return str(_statement(name).compile(dialect=PGDialect_psycopg()))  # type: ignore[no-untyped-call]


class _Cursor(psycopg.Cursor[Row]):
    """A plain psycopg cursor, whatever cursor class, rows and types the caller's connection uses."""

    @property
    def adapters(self) -> AdaptersMap:
        """psycopg's own adapters. The caller's may load naive times (Django with USE_TZ off)."""
        return _ADAPTERS


def fetch(connection: AnyConnection, name: str, **parameters: object) -> Sequence[Row]:
    """Run the statement `sql/<name>.sql` in the caller's transaction and return its rows.

    Raises:
        PaymentBufferError: the connection would commit each statement on its own, or its encoding, date
            style or type loaders are not the expected ones; the message says what to set.
    """
    if isinstance(connection, psycopg.Connection):
        _require_transaction(connection)
        require_answers_as_expected(connection)
        with _Cursor(connection, row_factory=dict_row) as cursor:
            cursor.execute(_pyformat(name), parameters, prepare=False)
            return cursor.fetchall()
    driver_connection = connection.connection.driver_connection
    _require_transaction(driver_connection)
    require_answers_as_expected(driver_connection)
    _require_own_loaders(driver_connection)
    return connection.execute(_statement(name), parameters).mappings().all()


def array_text(values: Sequence[str] | Sequence[int] | Sequence[datetime]) -> str:
    """Return values of one type as the text of a PostgreSQL array; the statement casts it.

    The driver would convert a list value by value, which takes ten times as long.
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
    """Run the block in a savepoint. After an error, the caller's transaction can continue.

    The caller's transaction has begun already.
    """
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
def wallet_capacity_or_refusal(
    connection: AnyConnection, wallet: str, *, hold_id: int | None = None, backjob_id: int | None = None
) -> Iterator[None]:
    """Run the block in a savepoint and turn an overflow of a wallet into a refusal.

    Raises:
        WalletFull: instead of the database's error. Its message begins with `wallet`, and it has the ids.
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


def database_clock(connection: AnyConnection) -> datetime:
    """Return the clock of the books, timezone-aware: the database's, or that of a sandbox."""
    now = fetch(connection, "database/clock")[0]["now"]
    assert isinstance(now, datetime)
    return now


def server_clock(connection: AnyConnection) -> datetime:
    """Return the database server's own clock, timezone-aware, also of a sandbox."""
    now = fetch(connection, "database/server_clock")[0]["now"]
    assert isinstance(now, datetime)
    return now


def confirm(connection: AnyConnection) -> None:
    """Make the commit of a transaction that only reads wait for the synchronous standby.

    Then what it has read is on the standby too. A verb does this by itself.
    """
    fetch(connection, "database/confirm")


def _require_transaction(connection: Any) -> None:
    # A verb runs several statements, which must be committed together or not at all.
    if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        raise PaymentBufferError(
            "connection: in autocommit and outside a transaction; begin one first,"
            " so that the verb commits or rolls back with your own rows"
        )


def require_answers_as_expected(connection: Any) -> None:
    # The server reports its parameters when it connects, and the driver keeps them, so no query is needed.
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
    # SQLAlchemy uses its own cursors, which load values with the connection's loaders.
    loader_of = connection.adapters.get_loader
    for type_name, oid, loader in _LOADERS:
        if (found := loader_of(oid, Format.TEXT)) is not loader:
            raise PaymentBufferError(
                f"connection: its {type_name} is loaded by {found.__name__}, which a SQLAlchemy connection"
                " passes on; leave psycopg's own loader, or call on the psycopg connection"
            )
