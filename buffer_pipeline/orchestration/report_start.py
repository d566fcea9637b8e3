"""The start of the report partitions: the first hour of the books, so that no earlier hours are counted."""

import multiprocessing
import sys
from collections.abc import Callable
from datetime import UTC, datetime, time
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.exc import ArgumentError, DBAPIError

from buffer_pipeline.database import database_clock, fetch, make_engine, psycopg_url
from buffer_pipeline.errors import PaymentBufferError
from buffer_pipeline.inputs import EARLIEST
from buffer_pipeline.reports.complete_hours import first_hour
from buffer_pipeline.settings import Settings

START_OF_ALL: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""The start if BUFFER_DATABASE_URL is unset or the books there do not answer."""

BOOKS_ANSWER_SECONDS_MAX: Final = 2
"""The limit for reading the books. A code server must be able to start while the database is away."""


def reports_start(
    settings: Settings, *, clock: Callable[[Connection], datetime] = database_clock
) -> datetime:
    """Return the start of the partitions: BUFFER_REPORTS_START, else the first hour of the books.

    Empty books start today. In a process that executes a run, all books start at `EARLIEST`. The embedded
    server is not read, because loading the definitions must not start it: its books start at
    `START_OF_ALL`.
    """
    if settings.reports_start is not None:
        return datetime.combine(settings.reports_start, time(), tzinfo=UTC)
    if _is_a_run():
        # A run loads the definitions again. The books may have got their first hour since the code server
        # started, and the run may be asked for an earlier hour. Only listing partitions needs the real start.
        return EARLIEST
    return (
        START_OF_ALL if settings.database_url is None else _first_hour_of_books(settings.database_url, clock)
    )


def _is_a_run() -> bool:
    """Return True in a process that executes a run or a step: a child of the code server, or a pod."""
    if multiprocessing.parent_process() is not None:
        return True
    return not {"execute_run", "execute_step"}.isdisjoint(sys.argv)


def _first_hour_of_books(database_url: str, clock: Callable[[Connection], datetime]) -> datetime:
    try:
        url = psycopg_url(database_url)
        if "connect_timeout" not in url.query:
            url = url.update_query_dict({"connect_timeout": str(BOOKS_ANSWER_SECONDS_MAX)})
        engine = make_engine(url)
    except (ArgumentError, ValueError):
        return START_OF_ALL
    try:
        with engine.begin() as connection:
            fetch(connection, "doctor/patience", milliseconds=str(BOOKS_ANSWER_SECONDS_MAX * 1000))
            return first_hour(connection) or datetime.combine(clock(connection), time(), tzinfo=UTC)
    except (PaymentBufferError, DBAPIError, ArgumentError, UnicodeError, TypeError, ValueError):
        # The definitions must load. A run that needs the books reports why they cannot be used.
        return START_OF_ALL
    finally:
        engine.dispose()
