"""The storage that dagster.yaml names: Dagster's own, on a PostgreSQL server that may be away for a while."""

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import dagster as dg
from dagster_postgres import (
    DagsterPostgresStorage,
    PostgresEventLogStorage,
    PostgresRunStorage,
    PostgresScheduleStorage,
)
from dagster_postgres.utils import create_pg_engine, set_pg_statement_timeout
from sqlalchemy import Connection, Engine, event, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from buffer_pipeline.database import with_limits
from buffer_pipeline.orchestration.dagster_internals import ConfigurableClassData, UserConfigSchema

TRY_SECONDS: Final = 1

STORAGE_START_SECONDS_MAX: Final = 10
"""How long a process waits for its first connection. After that, its settings are probably wrong."""

LOGGED_AGAIN_SECONDS: Final = 60

_REFUSALS: Final = (
    "password authentication failed",
    "no pg_hba.conf entry",
    "does not exist",
    "is not permitted to log in",
    "permission denied for database",
)
"""Refusals of a server that answers. A retry would not help. psycopg2 gives no SQLSTATE for them."""

_log: Final = logging.getLogger("dagster.storage")


class _Outage:
    """The log of a server that is away: one line at the start, one per minute, and one when it is back.

    A daemon has a dozen threads. Without this, each of them would log a traceback every few seconds.
    """

    def __init__(self) -> None:
        self.has_answered = False
        self._lock = threading.Lock()
        self._began: float | None = None
        self._logged = 0.0

    def goes_on(self, error: OperationalError) -> None:
        """Note that a connection was refused."""
        now = time.monotonic()
        with self._lock:
            if self._began is None:
                self._began = now
            elif now - self._logged < LOGGED_AGAIN_SECONDS:
                return
            self._logged = now
        reason = str(error.orig).partition("\n")[0]
        _log.warning("Dagster's storage does not answer, waiting for it: %s", reason)

    def is_over(self) -> None:
        """Note that a connection was made."""
        self.has_answered = True
        if self._began is None:
            return
        with self._lock:
            began, self._began = self._began, None
        if began is not None:
            _log.warning("Dagster's storage answers again, after %.0f seconds", time.monotonic() - began)


_outage: Final = _Outage()


def _connected(engine: Engine, *, seconds_max: float) -> Connection:
    """Return a connection as soon as the server accepts one.

    Raises:
        OperationalError: it has accepted none within `seconds_max`, or it refuses the login.
    """
    deadline = time.monotonic() + seconds_max
    while True:
        try:
            connection = engine.connect()
        except OperationalError as error:
            if any(refusal in str(error.orig) for refusal in _REFUSALS):
                raise
            _outage.goes_on(error)
            if time.monotonic() > deadline:
                raise
            time.sleep(TRY_SECONDS)
        else:
            _outage.is_over()
            return connection


class _Waiting:
    """A mixin for Dagster's three storages: they wait for a server that is away instead of failing.

    The daemon and the runs wait without a limit. An error would fail the run, fill the daemon's log, and end
    the thread of the code server that reports crashed runs. The webserver gives up after its statement
    timeout, because a user waits for its answer.
    """

    postgres_url: str
    _engine: Engine
    _token_provider: Any
    _seconds_max = math.inf

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Yield a connection to a server that answers."""
        with _connected(self._engine, seconds_max=self._seconds_max) as connection:
            yield connection

    def optimize_for_webserver(self, statement_timeout: int, pool_recycle: int, max_overflow: int) -> None:
        """Keep connections in a pool, as Dagster's own storage does, and test each before use.

        Without the test, a connection that a restart of the server has closed would fail its next user.
        """
        self._seconds_max = statement_timeout / 1000 or math.inf
        self._engine = create_pg_engine(
            self.postgres_url,
            self._token_provider,
            isolation_level="AUTOCOMMIT",
            pool_size=1,
            pool_recycle=pool_recycle,
            max_overflow=max_overflow,
            pool_pre_ping=True,
        )
        event.listen(
            self._engine,
            "connect",
            lambda connection, _: set_pg_statement_timeout(connection, statement_timeout),
        )


class _RunStorage(_Waiting, PostgresRunStorage):
    pass


class _ScheduleStorage(_Waiting, PostgresScheduleStorage):  # type: ignore[misc]  # Its types are looser.
    pass


class _EventLogStorage(_Waiting, PostgresEventLogStorage):
    _connect = _Waiting.connect


class Storage(DagsterPostgresStorage):
    """Dagster's own storage and tables, made of three storages that wait."""

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        postgres_url = with_limits(make_url(postgres_url)).render_as_string(hide_password=False)
        self.postgres_url = postgres_url
        self.should_autocreate_tables = True
        self._inst_data = inst_data
        # Connect before Dagster does: it tries five times and logs each failure with Python's root logger.
        # That adds a handler to the root logger, and from then on the process would log each line twice.
        seconds_max = math.inf if _outage.has_answered else STORAGE_START_SECONDS_MAX
        _connected(create_pg_engine(postgres_url, poolclass=NullPool), seconds_max=seconds_max).close()
        self._run_storage = _RunStorage(postgres_url)
        self._event_log_storage = _EventLogStorage(postgres_url)
        self._schedule_storage = _ScheduleStorage(postgres_url)
        # Skip Dagster's own __init__, which would create the three storages from its own classes.
        super(DagsterPostgresStorage, self).__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Return the schema of the configuration in dagster.yaml."""
        return {"postgres_url": dg.StringSource}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "Storage":
        """Create the storage from the configuration in dagster.yaml."""
        return cls(config_value["postgres_url"], inst_data)
