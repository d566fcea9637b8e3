"""The databases of `dev`: the books and Dagster's storage, on the embedded server or on your own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.audit.reconcile import tables_in_use
from buffer_pipeline.cli.first_look import Sample
from buffer_pipeline.cli.output import iso
from buffer_pipeline.database import (
    bring_up_to_date,
    fetch,
    first_line,
    make_engine,
    open_database,
    psycopg_url,
)
from buffer_pipeline.embedded import embedded_server
from buffer_pipeline.errors import PaymentBufferError, SettingError
from buffer_pipeline.hours import clock_of_a_writer, hour_of
from buffer_pipeline.sandbox.clock import find_clock, start_clock
from buffer_pipeline.settings import Settings
from buffer_pipeline.simulation.sample import load_sample


@dataclass(frozen=True)
class Databases:
    """The URLs of the books, as their owner and as Dagster's login, and of Dagster's storage."""

    books_url: URL
    releaser_url: URL
    dagster_url: URL


@contextmanager
def open_databases(settings: Settings) -> Iterator[Databases]:
    """Yield the URLs. The embedded server runs until the end of the block.

    Raises:
        PaymentBufferError: Dagster's storage cannot be created.
    """
    given = settings.dagster_database_url
    if settings.database_url is not None:
        books_url = psycopg_url(settings.database_url)
        # Dagster uses the login of BUFFER_DATABASE_URL. It is the owner only if that login is.
        yield Databases(
            books_url,
            books_url,
            dagster_url(given) if given else _storage_beside(settings, books_url),
        )
        return
    with embedded_server(settings.home) as server:
        yield Databases(server.books_url, server.releaser_url, dagster_url(given or server.dagster_url))


def dagster_url(url: str | URL) -> URL:
    """Return the URL with Dagster's driver. With any other driver its webserver fails."""
    if isinstance(url, str):
        url = make_url(url.replace("postgres://", "postgresql://", 1))
    return url.set(drivername="postgresql+psycopg2")


def beside_the_books(books_url: URL) -> URL:
    """Return the URL of `<books>_dagster` on the server of the books."""
    return dagster_url(books_url.set(database=f"{books_url.database or books_url.username}_dagster"))


def _storage_beside(settings: Settings, books_url: URL) -> URL:
    """Return the URL of `<books>_dagster`, and create the database if it is missing."""
    storage_url = beside_the_books(books_url)
    name = storage_url.database
    assert name is not None
    with open_database(settings, migrated=False) as engine:
        find = text("SELECT EXISTS (SELECT FROM pg_database WHERE datname = :name)")
        create = text(f"CREATE DATABASE {engine.dialect.identifier_preparer.quote(name)}")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if not connection.scalar(find, {"name": name}):
                try:
                    connection.execute(create)
                except DBAPIError as error:
                    # Another process may have created it meanwhile.
                    if not connection.scalar(find, {"name": name}):
                        raise PaymentBufferError(
                            f"database {name!r}: cannot be created ({first_line(error)});"
                            " set BUFFER_DAGSTER_DATABASE_URL to one that Dagster may use"
                        ) from None
    return storage_url


def place_of_books(settings: Settings) -> str:
    """Return where the books are, for a message: the folder, or the name of the database."""
    if settings.database_url is None:
        return str(settings.home.resolve())
    return f"the database {psycopg_url(settings.database_url).database}"


def prepare_books(
    settings: Settings,
    databases: Databases,
    *,
    sample: bool,
    say: Callable[[str], None],
    clock: datetime | None = None,
) -> Sample | None:
    """Migrate the books, and load the sample into empty ones; return the sample if it was loaded.

    With a `clock`, books that hold nothing are made a sandbox at that time first.

    Raises:
        ClockRefused: with a `clock`, the books are real.
    """
    url = databases.books_url.render_as_string(hide_password=False)
    with open_database(settings.model_copy(update={"database_url": url}), migrated=False) as engine:
        bring_up_to_date(engine, where=place_of_books(settings), say=say)
        if clock is not None:
            _make_sandbox(engine, clock, say=say)
        if sample:
            with engine.begin() as connection:
                if not tables_in_use(connection):
                    say("Loading the sample: four weeks of a simulated marketplace.")
                    now = clock_of_a_writer(connection)
                    load_sample(connection, now=now)
                    begin = hour_of(fetch(connection, "hourly_counts/first_moment")[0]["moment"])
                    if settings.reports_start is not None:
                        begin = max(
                            begin, datetime.combine(settings.reports_start, datetime.min.time(), tzinfo=UTC)
                        )
                    return Sample(first_hour=begin, loaded_at=now)
    return None


def _make_sandbox(engine: Engine, clock: datetime, *, say: Callable[[str], None]) -> None:
    with engine.begin() as connection:
        if (found := find_clock(connection)) is not None:
            say(f"The books are a sandbox already, whose clock stays at {iso(found.now)}.")
            return
        say(f"The books are a sandbox now. Its clock is at {iso(start_clock(connection, now=clock).now)}.")


def require_dagster_storage(url: URL) -> None:
    """Connect to Dagster's storage once.

    Raises:
        SettingError: the database does not accept the connection.
    """
    engine = make_engine(url.set(drivername="postgresql+psycopg"))
    try:
        engine.connect().close()
    except DBAPIError as error:
        raise SettingError(f"BUFFER_DAGSTER_DATABASE_URL: {first_line(error)}") from None
    finally:
        engine.dispose()
