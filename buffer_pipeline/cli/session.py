"""What every command begins with: the settings, the books, their clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Connection, Engine

from buffer_pipeline.cli.output import notice
from buffer_pipeline.database import confirm, database_clock, one_moment, open_database
from buffer_pipeline.errors import InvalidInput, Refused
from buffer_pipeline.hours import clock_of_a_writer
from buffer_pipeline.settings import Settings, load_settings


@contextmanager
def books(*, migrated: bool = True, make: bool = False) -> Iterator[tuple[Engine, Settings]]:
    """Yield an engine on the books and the settings; new books only where a command is to `make` them."""
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
            # What stands in the way is told only once it is on the standby as well. The refused transaction
            # is rolled back, which waits for nobody.
            with engine.begin() as connection:
                confirm(connection)
            raise


@contextmanager
def one_look() -> Iterator[tuple[Connection, Settings, datetime]]:
    """Yield a connection that sees the books as they are at one moment, the settings and the time.

    For what reads only: it marks no hour as being written, which a reader may not.
    """
    with books() as (engine, settings), one_moment(engine) as connection:
        yield connection, settings, database_clock(connection)
