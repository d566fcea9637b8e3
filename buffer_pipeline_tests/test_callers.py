"""A platform calls the verbs on its own connection, inside its own transaction."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django import setup as django_setup
from django.conf import settings
from django.db import connections, transaction
from sqlalchemy import Connection, Engine, make_url, text

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.database import AnyConnection, database_clock
from buffer_pipeline.errors import InsufficientFunds, PaymentBufferError
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.intake import AddedHold, add_pending_earnings
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
@pytest.mark.parametrize("cursor_factory", [psycopg.Cursor, psycopg.ClientCursor])
def test_every_verb_runs_on_psycopg(
    platform: Engine, dsn: str, options: dict[str, Any], cursor_factory: type[psycopg.Cursor[Any]]
) -> None:
    """Every verb works on a psycopg connection, whatever rows and cursors the platform likes."""
    with psycopg.connect(dsn, cursor_factory=cursor_factory, **options) as connection:
        assert every_verb(connection) == EVERY_VERB_LEAVES

    with platform.connect() as books:
        assert wallet_of(books, PAYEE) == Wallet(pending_earnings_minor=100_000)


def test_every_verb_runs_on_sqlalchemy(connection: Connection) -> None:
    """What holds for psycopg holds for SQLAlchemy's connection."""
    assert every_verb(connection) == EVERY_VERB_LEAVES


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
