"""Callers' sessions with other types, parameters, encodings or time zones: they work, or the refusal names
the cause.
"""

import json
import os
import re
from collections.abc import Iterator
from typing import Any, Final

import psycopg
import pytest
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.types.string import StrDumper
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.dialects.postgresql.base import PGDialect

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.errors import PaymentBufferError
from buffer_pipeline.hold import HoldState
from buffer_pipeline.release import release_matured
from buffer_pipeline_tests.support.builders import DAY_7, NOON, PAYEE, Wallet, wallet_of
from buffer_pipeline_tests.support.callers import (
    EVERY_VERB_LEAVES,
    add_invoice,
    every_verb,
    invoices_and_holds,
)
from buffer_pipeline_tests.support.hostile import run_command
from buffer_pipeline_tests.support.paths import ROOT


class _Odd(Loader):
    """A loader that returns a value that no verb can use."""

    def load(self, data: Buffer) -> object:
        """Return the bytes in a list."""
        return [bytes(data)]


class _OddText(StrDumper):
    """A dumper that reverses a text."""

    def dump(self, obj: str) -> Buffer | None:
        """Return the reversed text, encoded."""
        return super().dump(obj[::-1])


ODD_TYPES: Final = (
    "text",
    "int4",
    "int8",
    "numeric",
    "timestamptz",
    "bool",
    "jsonb",
    "text[]",
    "int8[]",
    "name",
)


def make_odd(connection: psycopg.Connection[Any]) -> None:
    """Register odd loaders and dumpers for all types on a connection."""
    for name in ODD_TYPES:
        oid = connection.adapters.types[name.removesuffix("[]")]
        connection.adapters.register_loader(oid.array_oid if name.endswith("[]") else oid.oid, _Odd)
    connection.adapters.register_dumper(str, _OddText)


def test_every_verb_runs_beside_the_platforms_type_adapters(platform: Engine, dsn: str) -> None:
    """The adapters that the platform registered on its connection stay registered."""
    with psycopg.connect(dsn) as connection:
        make_odd(connection)

        assert every_verb(connection) == EVERY_VERB_LEAVES
        assert connection.execute("SELECT 17").fetchone() == ([b"17"],)

    with platform.connect() as books:
        assert wallet_of(books, PAYEE) == Wallet(pending_earnings_minor=100_000)


TYPES_OF_ANSWERS: Final = (
    "bool",
    "int2",
    "int8",
    "int8[]",
    "numeric",
    "text",
    "text[]",
    "timestamptz",
    "timestamptz[]",
)
"""The types of all columns that the verbs' statements return."""

VOID: Final = 2278
"""The type of a function without a result, for example of one that takes an advisory lock."""

SQL: Final = ROOT / "buffer_pipeline" / "sql"
FOLDERS_OF_VERBS: Final = (
    "backjob", "contact", "currencies", "database", "explain", "freeze", "hours", "inbox", "intake", "locks",
    "reads", "refund", "release", "wallet",
)  # fmt: skip
REVISION: Final = SQL / "database" / "revision.sql"
"""A statement of the migrations, which no verb runs."""


def statements_of_verbs() -> Iterator[tuple[str, str]]:
    """Yield each statement that a verb runs: its file, and its text with PostgreSQL's parameters."""
    numbered = PGDialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
    for folder in FOLDERS_OF_VERBS:
        for path in sorted(set((SQL / folder).glob("*.sql")) - {REVISION}):
            yield path.name, str(text(path.read_text()).compile(dialect=numbered))


def test_statements_return_the_known_types(dsn: str) -> None:
    """PostgreSQL describes the columns of each statement. A new type needs a check of its loader."""
    types = psycopg.adapters.types
    checked = {types.get_oid(name) for name in TYPES_OF_ANSWERS}
    returned: dict[int, str] = {}

    with psycopg.connect(dsn) as connection:
        for name, statement in statements_of_verbs():
            prepared = connection.pgconn.prepare(b"", statement.encode())
            assert not prepared.error_message, (name, prepared.error_message)
            described = connection.pgconn.describe_prepared(b"")
            returned |= {described.ftype(column): name for column in range(described.nfields)}

    assert returned.keys() - {VOID} == checked, returned


@pytest.mark.parametrize("type_name", TYPES_OF_ANSWERS)
def test_sqlalchemy_connection_with_other_loaders_is_refused(engine: Engine, type_name: str) -> None:
    """SQLAlchemy returns what its connection loads, so the refusal names the type and the loader."""
    with engine.connect() as connection:
        driver_connection: Any = connection.connection.driver_connection
        driver_connection.adapters.register_loader(psycopg.adapters.types.get_oid(type_name), _Odd)
        with pytest.raises(PaymentBufferError, match=f"its {re.escape(type_name)} is loaded by _Odd"):
            add_invoice(connection)
        connection.invalidate()


SESSIONS: Final = {
    "a half hour's zone": "-c timezone=Asia/Kolkata",
    "a zone that nobody knows by name": "-c timezone=<+0545>-05:45",
    "days first": "-c datestyle=ISO,DMY",
    "intervals of the standard": "-c intervalstyle=sql_standard",
    "intervals of ISO 8601": "-c intervalstyle=iso_8601",
    "backslashes that escape": "-c standard_conforming_strings=off -c escape_string_warning=off",
    "arrays without NULL": "-c array_nulls=off",
    "equal to NULL": "-c transform_null_equals=on",
    "bytes in octal": "-c bytea_output=escape -c extra_float_digits=-15",
}


@pytest.mark.parametrize("cursor_factory", [psycopg.Cursor, psycopg.ClientCursor, psycopg.RawCursor])
@pytest.mark.parametrize("session", SESSIONS)
def test_every_verb_runs_with_the_platforms_session_parameters(
    platform: Engine, dsn: str, session: str, cursor_factory: type[psycopg.Cursor[Any]]
) -> None:
    """The results do not depend on the session's parameters."""
    with psycopg.connect(dsn, options=SESSIONS[session], cursor_factory=cursor_factory) as connection:
        assert every_verb(connection) == EVERY_VERB_LEAVES

    with platform.connect() as books:
        assert wallet_of(books, PAYEE) == Wallet(pending_earnings_minor=100_000)
        assert reconcile(books) == []


@pytest.mark.parametrize("session", SESSIONS)
def test_every_verb_runs_with_the_parameters_of_a_sqlalchemy_engine(platform: Engine, session: str) -> None:
    """The same holds for the platform's SQLAlchemy engine."""
    engine = create_engine(platform.url, connect_args={"options": SESSIONS[session]})
    with engine.begin() as connection:
        assert every_verb(connection) == EVERY_VERB_LEAVES
    engine.dispose()

    with platform.connect() as books:
        assert wallet_of(books, PAYEE) == Wallet(pending_earnings_minor=100_000)


UNREADABLE: Final = {
    "SET datestyle = 'SQL, DMY'": r"DateStyle is SQL, DMY; the books need ISO",
    "SET datestyle = 'German'": r"DateStyle is German, DMY; the books need ISO",
    "SET datestyle = 'Postgres'": r"DateStyle is Postgres, .*; the books need ISO",
    "SET client_encoding = 'SQL_ASCII'": "client_encoding is SQL_ASCII; the books need UTF8",
    "SET client_encoding = 'LATIN1'": "client_encoding is LATIN1; the books need UTF8",
}


@pytest.mark.parametrize("setting", UNREADABLE)
def test_unreadable_session_parameter_is_refused(platform: Engine, dsn: str, setting: str) -> None:
    """Nothing is written; the refusal names the parameter and the value that it needs. With that value the
    verb runs.
    """
    with psycopg.connect(dsn) as connection:
        connection.execute(setting)
        with pytest.raises(PaymentBufferError, match=f"^connection: {UNREADABLE[setting]}$"):
            add_invoice(connection)
        connection.execute("RESET ALL")
        connection.rollback()
        connection.execute("RESET ALL")
        add_invoice(connection)
    with platform.connect() as connection_of_sqlalchemy:
        connection_of_sqlalchemy.execute(text(setting))
        with pytest.raises(PaymentBufferError, match=f"^connection: {UNREADABLE[setting]}$"):
            add_invoice(connection_of_sqlalchemy)

    assert invoices_and_holds(platform) == (0, 1)


def test_database_without_an_encoding_is_refused(server: EmbeddedServer) -> None:
    """In SQL_ASCII the characters of a name would be bytes. Migrating such a database is refused too."""
    name = f"ascii_{os.urandom(4).hex()}"
    admin = make_engine(server.url("postgres", user="postgres")).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(
            text(
                f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
            )
        )
    url = server.url(name, user="postgres").render_as_string(hide_password=False)

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BUFFER_DATABASE_URL", url)
        refused = run_command("migrate")
    with (
        psycopg.connect(url.replace("+psycopg", "")) as caller,
        pytest.raises(PaymentBufferError, match="server_encoding is SQL_ASCII"),
    ):
        add_invoice(caller)

    assert (refused.code, refused.out) == (1, "")
    assert "server_encoding is SQL_ASCII; the books need UTF8" in refused.err
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def test_commands_ignore_the_servers_default_parameters(engine: Engine, database_url: str) -> None:
    """Commands work with a database or role that has another date style as default."""
    with engine.begin() as connection:
        connection.execute(text(f"ALTER DATABASE {engine.url.database} SET datestyle = 'SQL, DMY'"))
        connection.execute(text(f"ALTER DATABASE {engine.url.database} SET client_encoding = 'LATIN1'"))
        connection.execute(text(f"ALTER DATABASE {engine.url.database} SET timezone = 'Asia/Kolkata'"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BUFFER_DATABASE_URL", database_url)
        environment.setenv("PGCLIENTENCODING", "LATIN1")

        moved = run_command(
            *("wallet", "deposit", "Łódź", "--amount", "5", "--currency", "PHP", "--reference", "r", "--json")
        )
        shown = run_command("wallet", "statement", "Łódź", "--json")

    assert (moved.code, shown.code) == (0, 0), moved.err + shown.err
    assert json.loads(shown.out)[0]["recorded_at"].endswith("Z")


def test_session_in_another_time_zone_gets_the_same_moments(platform: Engine, dsn: str) -> None:
    """A session in Manila's time zone gets the same moments."""
    with psycopg.connect(dsn, options="-c timezone=Asia/Manila") as connection:
        added = add_invoice(connection)
        again = add_invoice(connection, held_at=NOON, release_date=DAY_7)

        assert (again.replayed, again.release_date) == (True, DAY_7)
        assert added.release_date == DAY_7
        release_matured(connection, now=DAY_7, batch_limit=10)
        assert add_invoice(connection).state is HoldState.RELEASED

    assert invoices_and_holds(platform) == (0, 1)
