"""Open the books of a database, check their revision, and migrate them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Engine, text
from sqlalchemy.exc import ArgumentError, DBAPIError, ProgrammingError

from buffer_pipeline.database.engine import first_line, make_engine
from buffer_pipeline.database.statements import require_answers_as_expected, statement_text
from buffer_pipeline.errors import PaymentBufferError, SettingError
from buffer_pipeline.settings import Settings

REVISION: Final = "0028"
"""The migration that this code needs; a test compares it with the newest file."""

INSTALL_A_NEWER_VERSION: Final = "install the version of buffer-pipeline that migrated them, or a newer one"
"""What to do if the books are at a later revision."""

_NOT_THERE: Final = {"42P01", "3F000"}
"""SQLSTATE of a missing table and of a missing schema."""

OLDEST_SERVER: Final = 150000


def _say_nothing(_text: str) -> None:
    pass


@contextmanager
def open_database(
    settings: Settings,
    *,
    migrated: bool = True,
    answering: bool = True,
    make: bool = False,
    say: Callable[[str], None] = _say_nothing,
) -> Iterator[Engine]:
    """Yield an engine on the books: those at BUFFER_DATABASE_URL, or those of the embedded server.

    The embedded server is started if it does not run, and its books are migrated. New books are made only
    with `make`, because a wrong folder would otherwise look like empty books. `say` gets a sentence if
    books were made or migrated. The server at BUFFER_DATABASE_URL is never migrated here. With
    `answering=False` it is not even contacted.

    Raises:
        SettingError: the server at BUFFER_DATABASE_URL does not answer; or it is unset, and BUFFER_HOME
            has no books or the `embedded` extra is not installed.
        PaymentBufferError: the books are not at the revision that this code needs.
    """
    if settings.database_url is not None:
        try:
            engine = make_engine(settings.database_url)
        except ArgumentError:
            raise SettingError("BUFFER_DATABASE_URL: its query has something that cannot be used") from None
        try:
            if answering:
                _require_usable(engine, migrated=migrated)
            yield engine
        finally:
            engine.dispose()
        return

    from buffer_pipeline.embedded import embedded_server, no_books  # noqa: PLC0415 - an optional extra

    with embedded_server(settings.home, make=make) as server:
        engine = make_engine(server.books_url)
        try:
            # The process that made the server may have ended before it made the books.
            if not make and books_revision(engine) is None:
                raise no_books(settings.home)
            bring_up_to_date(engine, where=str(settings.home.resolve()), say=say)
            yield engine
        finally:
            engine.dispose()


def _require_usable(engine: Engine, *, migrated: bool) -> None:
    try:
        with engine.connect() as connection:
            version = connection.scalar(text("SELECT current_setting('server_version_num')::int"))
            require_answers_as_expected(connection.connection.driver_connection)
    except DBAPIError as error:
        raise SettingError(f"BUFFER_DATABASE_URL: {first_line(error)}") from None
    except (ArgumentError, UnicodeError, TypeError, ValueError):
        # From SQLAlchemy, the resolver or psycopg. Their messages may repeat a part of the URL, so they are
        # not shown.
        raise SettingError("BUFFER_DATABASE_URL: a part of it cannot be used to connect") from None
    if version < OLDEST_SERVER:
        raise SettingError(f"BUFFER_DATABASE_URL: needs PostgreSQL 15 or newer, found {version}")
    if migrated and (found := books_revision(engine)) != REVISION:
        _refuse_newer(found)
        raise PaymentBufferError(
            f"books: at revision {found or 'none'}, this version needs {REVISION};"
            " run `buffer-pipeline migrate`"
        )


def _refuse_newer(found: str | None) -> None:
    if found is not None and found > REVISION:
        raise PaymentBufferError(
            f"books: at revision {found}, this version needs {REVISION}; {INSTALL_A_NEWER_VERSION}"
        )


def books_revision(engine: Engine) -> str | None:
    """Return the migration that the books are at, None if there are no books."""
    try:
        with engine.connect() as connection:
            # Not by `fetch`, which refuses a session that is not set up yet: this is the first statement.
            revision: str | None = connection.scalar(text(statement_text("database/revision")))
            return revision
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) in _NOT_THERE:
            return None
        raise


def bring_up_to_date(engine: Engine, *, where: str, say: Callable[[str], None]) -> None:
    """Make the books, or migrate them to this code's revision, and report it to `say`. Safe to run again."""
    found = books_revision(engine)
    if found == REVISION:
        return
    migrate(engine)
    if found is None:
        say(f"Made new books in {where}.")
    else:
        say(f"Brought the books in {where} from revision {found} to {REVISION}.")


def migrate(engine: Engine, revision: str = "head") -> None:
    """Migrate the books to a revision; "base" drops everything. Two processes may call it at once.

    Raises:
        PaymentBufferError: the books are at a revision that this code does not know.
    """
    _refuse_newer(books_revision(engine))
    from alembic import command  # noqa: PLC0415 - slow to import, seldom needed
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "buffer_pipeline:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        if revision == "base":
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)
            # By the revision, because the function is not there before it.
            if revision == "head":
                connection.execute(text(statement_text("sandbox/follow")))
