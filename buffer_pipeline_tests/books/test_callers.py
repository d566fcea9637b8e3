"""A platform calls the verbs on its own connection, in its own transaction."""

from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, create_engine

from buffer_pipeline.errors import InsufficientFunds, PaymentBufferError
from buffer_pipeline.hold import HoldState
from buffer_pipeline.wallet import withdraw
from buffer_pipeline_tests.support.builders import NOON, PAYEE, Wallet, row_counts, state_of, wallet_of
from buffer_pipeline_tests.support.callers import (
    EVERY_VERB_LEAVES,
    add_invoice,
    every_verb,
    invoices_and_holds,
)


def test_psycopg_commit_includes_the_hold(platform: Engine, dsn: str) -> None:
    """The hold is committed with the platform's row, not before."""
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO public.invoice VALUES ('invoice-1')")
        added = add_invoice(connection)

        assert invoices_and_holds(platform) == (0, 0)
        connection.commit()

    assert invoices_and_holds(platform) == (1, 1)
    with platform.connect() as books:
        assert state_of(books, added.hold_id) is HoldState.BUFFERED
        assert wallet_of(books, PAYEE) == Wallet(pending_earnings_minor=100_000)


def test_psycopg_rollback_includes_the_hold(platform: Engine, dsn: str) -> None:
    """A rollback undoes the hold, its wallets and its notification with the platform's row."""
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO public.invoice VALUES ('invoice-1')")
        add_invoice(connection)
        connection.rollback()

    assert invoices_and_holds(platform) == (0, 0)
    with platform.connect() as books:
        assert set(row_counts(books).values()) == {0}


def test_refusal_leaves_the_platforms_transaction_usable(platform: Engine, dsn: str) -> None:
    """After a refusal, the platform can commit its own row."""
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO public.invoice VALUES ('invoice-1')")
        add_invoice(connection)
        with pytest.raises(InsufficientFunds):
            withdraw(connection, owner=PAYEE, amount="1.00", currency="PHP", reference="bank-1", now=NOON)
        connection.commit()

    assert invoices_and_holds(platform) == (1, 1)


def test_psycopg_autocommit_is_refused_outside_a_transaction(platform: Engine, dsn: str) -> None:
    """A connection in autocommit mode is refused before it writes. In a transaction block it is accepted."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        with pytest.raises(PaymentBufferError, match="in autocommit and outside a transaction"):
            add_invoice(connection)

        assert invoices_and_holds(platform) == (0, 0)
        with connection.transaction():
            add_invoice(connection)

    assert invoices_and_holds(platform) == (0, 1)


def test_sqlalchemy_autocommit_is_refused(platform: Engine) -> None:
    """SQLAlchemy's AUTOCOMMIT looks like a transaction but is none."""
    with (
        platform.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(PaymentBufferError, match="in autocommit and outside a transaction"),
    ):
        add_invoice(connection)

    assert invoices_and_holds(platform) == (0, 0)


@pytest.mark.parametrize("options", [{}, {"row_factory": psycopg.rows.namedtuple_row}])
@pytest.mark.parametrize("cursor_factory", [psycopg.Cursor, psycopg.ClientCursor, psycopg.RawCursor])
def test_every_verb_runs_on_psycopg(
    platform: Engine, dsn: str, options: dict[str, Any], cursor_factory: type[psycopg.Cursor[Any]]
) -> None:
    """With every row factory and cursor class of the platform."""
    with psycopg.connect(dsn, cursor_factory=cursor_factory, **options) as connection:
        connection.server_cursor_factory = psycopg.RawServerCursor
        assert every_verb(connection) == EVERY_VERB_LEAVES

    with platform.connect() as books:
        assert wallet_of(books, PAYEE) == Wallet(pending_earnings_minor=100_000)


def test_every_verb_runs_on_sqlalchemy(connection: Connection) -> None:
    """The verbs also accept SQLAlchemy's connection."""
    assert every_verb(connection) == EVERY_VERB_LEAVES


def test_another_driver_is_refused_by_name(platform: Engine) -> None:
    """The refusal of psycopg2 names the driver that is needed."""
    engine = create_engine(platform.url.set(drivername="postgresql+psycopg2"))
    with engine.connect() as connection, pytest.raises(PaymentBufferError, match="must be psycopg 3"):
        add_invoice(connection)
    engine.dispose()
