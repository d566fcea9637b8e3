"""What every command begins with: the settings, the books, their clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Connection, Engine

from buffer_pipeline.database import database_clock, open_database
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.inputs import parse_time
from buffer_pipeline.settings import Settings, load_settings


@contextmanager
def books(*, migrated: bool = True) -> Iterator[tuple[Engine, Settings]]:
    """Yield an engine on the books and the settings."""
    settings = load_settings()
    with open_database(settings, migrated=migrated) as engine:
        yield engine, settings


@contextmanager
def one_transaction() -> Iterator[tuple[Connection, Settings, datetime]]:
    """Yield a connection in a transaction that commits at the end, the settings and the time."""
    with books() as (engine, settings), engine.begin() as connection:
        yield connection, settings, database_clock(connection)


def parse_as_of(text: str | None, *, now: datetime) -> datetime:
    """Return the moment that `--as-of` names, `now` without one.

    Raises:
        InvalidInput: not a time with a zone, or after the database's clock.
    """
    if text is None:
        return now
    as_of = parse_time("as_of", text)
    if as_of > now:
        raise InvalidInput(f"as_of {as_of.isoformat()}: lies after the database's clock, {now.isoformat()}")
    return as_of
