"""Where the partitions of the reports begin: with the books, so that nobody counts hours before them."""

import multiprocessing
import sys
from datetime import UTC, datetime, time
from typing import Final

from sqlalchemy.exc import ArgumentError, DBAPIError

from buffer_pipeline.counts import first_hour
from buffer_pipeline.database import fetch, make_engine, psycopg_url
from buffer_pipeline.errors import PaymentBufferError
from buffer_pipeline.inputs import EARLIEST
from buffer_pipeline.settings import Settings

START_OF_ALL: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""Where partitions begin when BUFFER_DATABASE_URL is unset, or the books there do not answer."""

SECONDS_MAX: Final = 2
"""Partitions are part of the definitions, and a code server comes up while the database is away."""


def reports_start(settings: Settings) -> datetime:
    """Return the first hour: that of BUFFER_REPORTS_START, else of the books, else `START_OF_ALL`.

    Empty books begin today, and in a process that executes a run they all begin at `EARLIEST`. Only books at
    BUFFER_DATABASE_URL are asked, since loading starts no server.
    """
    if settings.reports_start is not None:
        return datetime.combine(settings.reports_start, time(), tzinfo=UTC)
    if _is_a_run():
        # It loads the definitions again, when the books may have got their first hour, and is asked for hours
        # that the code server had before. Only who lists partitions needs the true start.
        return EARLIEST
    return START_OF_ALL if settings.database_url is None else _first_hour_of_books(settings.database_url)


def _is_a_run() -> bool:
    """Return True in a process that executes a run or a step: spawned by the code server, or a pod's."""
    if multiprocessing.parent_process() is not None:
        return True
    return not {"execute_run", "execute_step"}.isdisjoint(sys.argv)


def _first_hour_of_books(database_url: str) -> datetime:
    try:
        url = psycopg_url(database_url)
        if "connect_timeout" not in url.query:
            url = url.update_query_dict({"connect_timeout": str(SECONDS_MAX)})
        engine = make_engine(url)
    except (ArgumentError, ValueError):
        return START_OF_ALL
    try:
        with engine.begin() as connection:
            fetch(connection, "doctor/patience", milliseconds=str(SECONDS_MAX * 1000))
            return first_hour(connection) or datetime.combine(datetime.now(UTC), time(), tzinfo=UTC)
    except (PaymentBufferError, DBAPIError, ArgumentError, UnicodeError, TypeError, ValueError):
        # Whoever runs something with these books is told why they cannot be used; a definition only loads.
        return START_OF_ALL
    finally:
        engine.dispose()
