"""A platform calls the verbs on its own connection, inside its own transaction."""

import json
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from django import setup as django_setup
from django.conf import settings
from django.db import connections, transaction
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.types.string import StrDumper
from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.dialects.postgresql.base import PGDialect

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.database import AnyConnection, database_clock, make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.errors import InsufficientFunds, PaymentBufferError
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.intake import AddedHold, add_pending_earnings
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.builders import (
    ADMIN,
    DAY_7,
    JOB,
    PAYEE,
    PAYER,
    Wallet,
    row_counts,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.conftest import NOON
from buffer_pipeline_tests.hostile import run_command
from buffer_pipeline_tests.schema import PAGE


def add(connection: AnyConnection, **changes: Any) -> AddedHold:
    """Hold 1000 pesos."""
    return add_pending_earnings(
        connection,
        **{
            "reference": "invoice-1",
            "job": JOB,
            "payee": PAYEE,
            "payer": PAYER,
            "amount": "1000.00",
            "currency": "PHP",
            "now": NOON,
            **changes,
        },
    )


@pytest.fixture
def platform(engine: Engine) -> Engine:
    """The books beside a table of the platform's own."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE public.invoice (number text PRIMARY KEY)"))
    return engine


@pytest.fixture
def dsn(database_url: str) -> str:
    """The books' address as libpq writes it."""
    return make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)


def invoices_and_holds(platform: Engine) -> tuple[int, int]:
    """Return how many rows the platform's table and the books have."""
    with platform.connect() as connection:
        invoices = connection.execute(text("SELECT count(*) FROM public.invoice")).scalar_one()
        return invoices, row_counts(connection)["hold"]


def every_verb(connection: AnyConnection) -> list[HoldState]:
    """Run each verb once on four holds; return how these stand at the end, as replays tell."""

    def numbered(number: int) -> AddedHold:
        dates = {"held_at": NOON, "release_date": DAY_7}
        return add(connection, reference=f"invoice-{number}", job=f"job-{number}", **dates)

    released, early, _, resumed = [numbered(number) for number in range(4)]
    release_early(connection, hold_id=early.hold_id, by=PAYER, reason="well done", now=NOON)
    asked = request_backjob(connection, job="job-2", by=PAYER, reason="hm", now=NOON)
    approve_backjob(connection, backjob_id=asked.backjob_id, by=ADMIN, reason="yes", now=NOON)
    asked = request_backjob(connection, job="job-3", by=PAYER, reason="hm", now=NOON)
    reject_backjob(connection, backjob_id=asked.backjob_id, by=ADMIN, reason="no", now=NOON)
    frozen = freeze_hold(
        connection, hold_id=released.hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="?", now=NOON
    )
    unfreeze_hold(connection, freeze_id=frozen.freeze_id, by=ADMIN, reason="fine", now=NOON)
    release_matured(connection, now=DAY_7, batch_limit=10)
    deposit(connection, owner=PAYEE, amount="5.00", currency="PHP", reference="transfer-1", now=NOON)
    withdraw(connection, owner=PAYEE, amount="2005.00", currency="PHP", reference="bank-1", now=NOON)
    assert database_clock(connection).utcoffset() is not None
    assert numbered(3).release_date == resumed.release_date + timedelta(hours=24)
    return [numbered(number).state for number in range(4)]


EVERY_VERB_LEAVES = [HoldState.RELEASED, HoldState.RELEASED, HoldState.REFUNDED, HoldState.BUFFERED]


def test_psycopg_commit_takes_the_hold_along(platform: Engine, dsn: str) -> None:
    """On a plain psycopg connection the hold commits with the platform's own row, not before."""
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO public.invoice VALUES ('invoice-1')")
        added = add(connection)

        assert invoices_and_holds(platform) == (0, 0)
        connection.commit()

    assert invoices_and_holds(platform) == (1, 1)
    with platform.connect() as books:
        assert state_of(books, added.hold_id) is HoldState.BUFFERED
        assert wallet_of(books, PAYEE) == Wallet(pending_earnings_minor=100_000)


def test_psycopg_rollback_takes_the_hold_along(platform: Engine, dsn: str) -> None:
    """A rollback takes back the hold, its wallets and its notification with the platform's row."""
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO public.invoice VALUES ('invoice-1')")
        add(connection)
        connection.rollback()

    assert invoices_and_holds(platform) == (0, 0)
    with platform.connect() as books:
        assert set(row_counts(books).values()) == {0}


def test_refusal_leaves_the_platforms_transaction_usable(platform: Engine, dsn: str) -> None:
    """After a refusal the platform may go on and commit its own row."""
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO public.invoice VALUES ('invoice-1')")
        add(connection)
        with pytest.raises(InsufficientFunds):
            withdraw(connection, owner=PAYEE, amount="1.00", currency="PHP", reference="bank-1", now=NOON)
        connection.commit()

    assert invoices_and_holds(platform) == (1, 1)


def test_psycopg_autocommit_is_refused_outside_a_transaction(platform: Engine, dsn: str) -> None:
    """A connection that commits each statement is refused before it writes; a block makes it right."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        with pytest.raises(PaymentBufferError, match="in autocommit and outside a transaction"):
            add(connection)

        assert invoices_and_holds(platform) == (0, 0)
        with connection.transaction():
            add(connection)

    assert invoices_and_holds(platform) == (0, 1)


def test_sqlalchemy_autocommit_is_refused(platform: Engine) -> None:
    """SQLAlchemy's AUTOCOMMIT looks like a transaction and is none."""
    with (
        platform.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(PaymentBufferError, match="in autocommit and outside a transaction"),
    ):
        add(connection)

    assert invoices_and_holds(platform) == (0, 0)


@pytest.mark.parametrize("options", [{}, {"row_factory": psycopg.rows.namedtuple_row}])
@pytest.mark.parametrize("cursor_factory", [psycopg.Cursor, psycopg.ClientCursor, psycopg.RawCursor])
def test_every_verb_runs_on_psycopg(
    platform: Engine, dsn: str, options: dict[str, Any], cursor_factory: type[psycopg.Cursor[Any]]
) -> None:
    """Every verb works on a psycopg connection, whatever rows and cursors the platform likes."""
    with psycopg.connect(dsn, cursor_factory=cursor_factory, **options) as connection:
        connection.server_cursor_factory = psycopg.RawServerCursor
        assert every_verb(connection) == EVERY_VERB_LEAVES

    with platform.connect() as books:
        assert wallet_of(books, PAYEE) == Wallet(pending_earnings_minor=100_000)


def test_every_verb_runs_on_sqlalchemy(connection: Connection) -> None:
    """What holds for psycopg holds for SQLAlchemy's connection."""
    assert every_verb(connection) == EVERY_VERB_LEAVES


class _Odd(Loader):
    """Loads whatever it is as something that nobody can use."""

    def load(self, data: Buffer) -> object:
        """Return the bytes in a list."""
        return [bytes(data)]


class _OddText(StrDumper):
    """Writes a text as its reverse."""

    def dump(self, obj: str) -> Buffer | None:
        """Return the reverse, encoded."""
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
    """Let a platform's connection load and dump each type in a way of its own."""
    for name in ODD_TYPES:
        oid = connection.adapters.types[name.removesuffix("[]")]
        connection.adapters.register_loader(oid.array_oid if name.endswith("[]") else oid.oid, _Odd)
    connection.adapters.register_dumper(str, _OddText)


def test_every_verb_runs_beside_types_of_the_platforms_own(platform: Engine, dsn: str) -> None:
    """What the platform has registered on its connection is the platform's, and stays so."""
    with psycopg.connect(dsn) as connection:
        make_odd(connection)

        assert every_verb(connection) == EVERY_VERB_LEAVES
        assert connection.execute("SELECT 17").fetchone() == ([b"17"],)

    with platform.connect() as books:
        assert wallet_of(books, PAYEE) == Wallet(pending_earnings_minor=100_000)


TYPES_OF_ANSWERS: Final = ("bool", "int2", "int8", "int8[]", "numeric", "text", "text[]", "timestamptz")
"""What a verb reads: the types of all columns that its statements return."""

VOID: Final = 2278
"""What a function returns that has nothing to say, such as the one that takes an advisory lock."""

SQL: Final = Path(__file__).parents[1] / "buffer_pipeline" / "sql"


def statements_of_verbs() -> Iterator[tuple[str, str]]:
    """Yield each statement that a verb runs: its file, and its text with PostgreSQL's own parameters."""
    numbered = PGDialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
    for folder in (SQL, SQL / "contact", SQL / "inbox"):
        for path in sorted(set(folder.glob("*.sql")) - {PAGE}):
            yield path.name, str(text(path.read_text()).compile(dialect=numbered))


def test_the_types_of_answers_are_those_that_statements_return(dsn: str) -> None:
    """PostgreSQL describes the columns of each statement; a new type has to be checked for its loader."""
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
def test_sqlalchemys_connection_with_other_types_is_refused_by_name(engine: Engine, type_name: str) -> None:
    """SQLAlchemy passes on what its connection loads, so the type and the loader are named."""
    with engine.connect() as connection:
        driver_connection: Any = connection.connection.driver_connection
        driver_connection.adapters.register_loader(psycopg.adapters.types.get_oid(type_name), _Odd)
        with pytest.raises(PaymentBufferError, match=f"its {re.escape(type_name)} is loaded by _Odd"):
            add(connection)
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
def test_every_verb_runs_in_a_session_of_the_platforms_own(
    platform: Engine, dsn: str, session: str, cursor_factory: type[psycopg.Cursor[Any]]
) -> None:
    """Whatever the platform has set for its sessions, all of it comes out the same."""
    with psycopg.connect(dsn, options=SESSIONS[session], cursor_factory=cursor_factory) as connection:
        assert every_verb(connection) == EVERY_VERB_LEAVES

    with platform.connect() as books:
        assert wallet_of(books, PAYEE) == Wallet(pending_earnings_minor=100_000)
        assert reconcile(books) == []


@pytest.mark.parametrize("session", SESSIONS)
def test_every_verb_runs_in_such_a_session_of_sqlalchemys(platform: Engine, session: str) -> None:
    """The same by an engine of the platform's own."""
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
def test_a_session_that_cannot_be_read_is_refused_by_name(platform: Engine, dsn: str, setting: str) -> None:
    """Before anything is written the parameter is named and what it has to be; then it works."""
    with psycopg.connect(dsn) as connection:
        connection.execute(setting)
        with pytest.raises(PaymentBufferError, match=f"^connection: {UNREADABLE[setting]}$"):
            add(connection)
        connection.execute("RESET ALL")
        connection.rollback()
        connection.execute("RESET ALL")
        add(connection)
    with platform.connect() as connection_of_sqlalchemy:
        connection_of_sqlalchemy.execute(text(setting))
        with pytest.raises(PaymentBufferError, match=f"^connection: {UNREADABLE[setting]}$"):
            add(connection_of_sqlalchemy)

    assert invoices_and_holds(platform) == (0, 1)


def test_a_database_without_an_encoding_is_refused_by_name(server: EmbeddedServer) -> None:
    """In SQL_ASCII a name's characters would be bytes; migrating into one is refused too."""
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
        add(caller)

    assert (refused.code, refused.out) == (1, "")
    assert "server_encoding is SQL_ASCII; the books need UTF8" in refused.err
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def test_commands_speak_whatever_the_server_is_set_to(engine: Engine, database_url: str) -> None:
    """A database or a role with a style of its own is no matter for the command line."""
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


def test_another_driver_is_refused_by_name(platform: Engine) -> None:
    """SQLAlchemy on psycopg2 is told which driver it takes."""
    engine = create_engine(platform.url.set(drivername="postgresql+psycopg2"))
    with engine.connect() as connection, pytest.raises(PaymentBufferError, match="must be psycopg 3"):
        add(connection)
    engine.dispose()


def test_session_in_another_time_zone_is_understood(platform: Engine, dsn: str) -> None:
    """A platform whose sessions speak Manila's time gets the same moments."""
    with psycopg.connect(dsn, options="-c timezone=Asia/Manila") as connection:
        added = add(connection)
        again = add(connection, held_at=NOON, release_date=DAY_7)

        assert (again.replayed, again.release_date) == (True, DAY_7)
        assert added.release_date == DAY_7
        release_matured(connection, now=DAY_7, batch_limit=10)
        assert add(connection).state is HoldState.RELEASED

    assert invoices_and_holds(platform) == (0, 1)


@pytest.fixture(params=[True, False], ids=["USE_TZ", "naive"])
def django(request: pytest.FixtureRequest, platform: Engine) -> Iterator[Any]:
    """A Django whose default database holds the books, with and without time zones."""
    if not settings.configured:
        settings.configure(LOGGING_CONFIG=None)
        django_setup()
    before = (settings.USE_TZ, connections.settings)
    url = platform.url
    settings.USE_TZ = request.param
    connections.settings = connections.configure_settings(
        {
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": url.database,
                "USER": url.username,
                "HOST": url.query["host"],
                "PORT": url.query["port"],
            }
        }
    )
    yield connections["default"]
    connections["default"].close()
    del connections["default"]
    settings.USE_TZ, connections.settings = before


def test_django_commit_takes_the_hold_along(platform: Engine, django: Any) -> None:
    """Inside atomic() the hold commits with the platform's own row, not before."""
    with transaction.atomic():
        with django.cursor() as cursor:
            cursor.execute("INSERT INTO public.invoice VALUES ('invoice-1')")
        added = add(django.connection)

        assert invoices_and_holds(platform) == (0, 0)

    assert invoices_and_holds(platform) == (1, 1)
    assert added.release_date == DAY_7


def test_django_rollback_takes_the_hold_along(platform: Engine, django: Any) -> None:
    """An exception in atomic() takes back the hold with the platform's own row."""

    @transaction.atomic  # type: ignore[untyped-decorator]
    def order() -> None:
        with django.cursor() as cursor:
            cursor.execute("INSERT INTO public.invoice VALUES ('invoice-1')")
        add(django.connection)
        raise RuntimeError("the card was declined")

    with pytest.raises(RuntimeError, match="the card was declined"):
        order()

    assert invoices_and_holds(platform) == (0, 0)


def test_django_savepoint_takes_the_hold_along(platform: Engine, django: Any) -> None:
    """An inner atomic() that fails takes back its hold alone."""

    @transaction.atomic  # type: ignore[untyped-decorator]
    def second_order() -> None:
        add(django.connection, reference="invoice-2")
        raise RuntimeError("the card was declined")

    with transaction.atomic():
        add(django.connection)
        with pytest.raises(RuntimeError, match="the card was declined"):
            second_order()

    assert invoices_and_holds(platform) == (0, 1)


def test_django_autocommit_is_refused_outside_atomic(platform: Engine, django: Any) -> None:
    """Django's default, a commit after every statement, is refused before anything is written."""
    django.ensure_connection()

    with pytest.raises(PaymentBufferError, match="in autocommit and outside a transaction"):
        add(django.connection)

    assert invoices_and_holds(platform) == (0, 0)


def test_every_verb_runs_on_djangos_connection(platform: Engine, django: Any) -> None:
    """Django's own cursors, types and time zones make no difference to any verb."""
    with transaction.atomic():
        assert every_verb(django.connection) == EVERY_VERB_LEAVES

    with platform.connect() as books:
        assert wallet_of(books, PAYEE) == Wallet(pending_earnings_minor=100_000)
