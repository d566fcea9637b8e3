"""The start of every command: the settings, the books, and their clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Connection, Engine

from buffer_pipeline.cli.output import notice
from buffer_pipeline.database import confirm, database_clock, fetch, open_database, snapshot
from buffer_pipeline.errors import InvalidInput, Refused
from buffer_pipeline.hours import clock_of_a_writer
from buffer_pipeline.settings import Settings, load_settings


@contextmanager
def books(*, migrated: bool = True, make: bool = False) -> Iterator[tuple[Engine, Settings]]:
    """Yield an engine on the books and the settings. With `make`, create books if there are none."""
    settings = load_settings()
    with open_database(settings, migrated=migrated, make=make, say=notice) as engine:
        yield engine, settings


@contextmanager
def one_transaction() -> Iterator[tuple[Connection, Settings, datetime]]:
    """Yield a connection in a transaction that commits at the end, the settings and the time."""
    with books() as (engine, settings):
        try:
            with engine.begin() as connection:
                yield connection, settings, clock_of_a_writer(connection)
        except InvalidInput:
            raise
        except Refused:
            # Report a refusal only after the standby has the rows that caused it. The refused transaction was
            # rolled back, and a rollback does not wait for the standby.
            with engine.begin() as connection:
                confirm(connection)
            raise


@contextmanager
def one_snapshot() -> Iterator[tuple[Connection, Settings, datetime]]:
    """Yield a connection that sees one snapshot of the books, the settings and the time.

    For commands that only read: it marks no hour as being written, which a reader's login may not do.
    """
    with books() as (engine, settings), snapshot(engine) as connection:
        yield connection, settings, database_clock(connection)


def login_of(connection: Connection) -> str:
    """Return the login of the connection: who does something, if nobody else is named."""
    login: str = fetch(connection, "database/login")[0]["login"]
    return login
