"""A platform's connections, SQLAlchemy's and psycopg's, with transactions that can be abandoned
at any point.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import psycopg
from psycopg import IsolationLevel
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.database import AnyConnection

READ_COMMITTED: Final = "READ COMMITTED"
HIGHER_LEVELS: Final = ("REPEATABLE READ", "SERIALIZABLE")

DEADLOCK: Final = "40P01"
SERIALIZATION_FAILURE: Final = "40001"
LOCK_NOT_AVAILABLE: Final = "55P03"
_LOST: Final = {"57P01", "57P02", "57P03", "25006"}
"""The server shuts down, has crashed or does not answer yet, or is a read-only standby."""


class Session(Protocol):
    """One connection in a transaction with a chosen isolation level."""

    @property
    def connection(self) -> AnyConnection:
        """The argument of a verb."""

    @property
    def pid(self) -> int:
        """The process id of the backend."""

    def execute(self, statement: str, parameters: Mapping[str, object] | None = None) -> Sequence[Any]:
        """Run a statement with psycopg's parameter style and return its rows."""

    def commit(self) -> None:
        """Commit."""

    def close(self) -> None:
        """Roll back uncommitted work and return the connection."""


class SqlalchemySession:
    """A connection of an engine's pool."""

    def __init__(self, engine: Engine, isolation: str) -> None:
        self.connection = engine.connect().execution_options(isolation_level=isolation)
        driver_connection: Any = self.connection.connection.driver_connection
        self.pid: int = driver_connection.info.backend_pid

    def execute(self, statement: str, parameters: Mapping[str, object] | None = None) -> Sequence[Any]:
        """Run a statement and return its rows."""
        result = self.connection.exec_driver_sql(statement, dict(parameters or {}))
        return result.all() if result.returns_rows else []

    def commit(self) -> None:
        """Commit."""
        self.connection.commit()

    def close(self) -> None:
        """Roll back uncommitted work and return the connection."""
        self.connection.close()


class PsycopgSession:
    """A connection that its caller keeps."""

    def __init__(self, connection: psycopg.Connection[Any], isolation: str) -> None:
        self.connection = connection
        self.connection.isolation_level = IsolationLevel[isolation.replace(" ", "_")]
        self.pid = self.connection.info.backend_pid

    def execute(self, statement: str, parameters: Mapping[str, object] | None = None) -> Sequence[Any]:
        """Run a statement and return its rows."""
        cursor = self.connection.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []

    def commit(self) -> None:
        """Commit."""
        self.connection.commit()

    def close(self) -> None:
        """Roll back uncommitted work."""
        if not self.connection.closed:
            with suppress(psycopg.OperationalError):  # It was killed meanwhile.
                self.connection.rollback()


class Sessions:
    """One thread's connections: a shared engine and its own psycopg connection."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._own: psycopg.Connection[Any] | None = None

    def open(self, isolation: str, *, psycopg_own: bool) -> Session:
        """Return a session without any statement yet."""
        if not psycopg_own:
            return SqlalchemySession(self._engine, isolation)
        if self._own is None or self._own.closed:
            self._own = psycopg.connect(self._url)
        return PsycopgSession(self._own, isolation)

    def close(self) -> None:
        """Close its own connection."""
        if self._own is not None:
            self._own.close()


def driver_error(error: Exception) -> psycopg.Error | None:
    """Return the driver's error, or None for any other error."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return original if isinstance(original, psycopg.Error) else None


def is_lost(error: psycopg.Error) -> bool:
    """Return True if the session has ended, for example because it was killed."""
    return error.sqlstate in _LOST or (
        error.sqlstate is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    )
