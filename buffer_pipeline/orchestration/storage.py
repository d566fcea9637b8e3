"""Dagster's storage on PostgreSQL, for a server that may be away for a while: dagster.yaml names it."""

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import dagster as dg
from dagster._config.config_schema import UserConfigSchema
from dagster._serdes import ConfigurableClassData
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

TRY_SECONDS: Final = 1

START_SECONDS_MAX: Final = 10
"""How long a process waits that has not had an answer yet: its settings may be wrong."""

LOGGED_AGAIN_SECONDS: Final = 60

_REFUSALS: Final = (
    "password authentication failed",
    "no pg_hba.conf entry",
    "does not exist",
    "is not permitted to log in",
    "permission denied for database",
)
"""What a server says that does answer, and would say again. psycopg2 has no SQLSTATE of it."""

_log: Final = logging.getLogger("dagster.storage")


class _Outage:
    """What a process logs of a server that is away: a line when it goes, one a minute, one when it is back.

    A daemon has a dozen threads, and each would log it by itself, with a traceback, every few seconds.
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
    """Return a connection, as soon as the server grants one.

    Raises:
        OperationalError: it has granted none for so long, or refuses the login.
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
    """One of Dagster's three storages, which waits for a server that is away instead of failing.

    The daemon and the runs wait as long as it takes. An error would fail the run, fill the daemon's log,
    and end the code server's thread that reports crashed runs. The webserver, whose user waits too, gives
    up after its statement timeout.
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
        """Keep connections, as Dagster's own storage then does, and test each before it is used.

        Untested, those that a restart of the server has closed fail whoever gets them next.
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
    """Dagster's own storage and tables, of three storages that wait."""

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        postgres_url = with_limits(make_url(postgres_url)).render_as_string(hide_password=False)
        self.postgres_url = postgres_url
        self.should_autocreate_tables = True
        self._inst_data = inst_data
        # Dagster's own look at its tables, which comes next, tries five times and logs each by Python's
        # root logger. That gives the root logger a handler, and the process then logs each line twice.
        seconds_max = math.inf if _outage.has_answered else START_SECONDS_MAX
        _connected(create_pg_engine(postgres_url, poolclass=NullPool), seconds_max=seconds_max).close()
        self._run_storage = _RunStorage(postgres_url)
        self._event_log_storage = _EventLogStorage(postgres_url)
        self._schedule_storage = _ScheduleStorage(postgres_url)
        # Not Dagster's: it would make the three by its own classes.
        super(DagsterPostgresStorage, self).__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Return what dagster.yaml may say."""
        return {"postgres_url": dg.StringSource}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "Storage":
        """Make it of what dagster.yaml says."""
        return cls(config_value["postgres_url"], inst_data)
