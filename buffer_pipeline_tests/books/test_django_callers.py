"""A Django application calls the verbs inside its own transactions."""

from collections.abc import Iterator
from typing import Any

import pytest
from django import setup as django_setup
from django.conf import settings
from django.db import connections, transaction
from sqlalchemy import Engine

from buffer_pipeline.errors import PaymentBufferError
from buffer_pipeline_tests.support.builders import DAY_7, PAYEE, Wallet, wallet_of
from buffer_pipeline_tests.support.callers import (
    EVERY_VERB_LEAVES,
    add_invoice,
    every_verb,
    invoices_and_holds,
)


@pytest.fixture(params=[True, False], ids=["USE_TZ", "naive"])
def django(request: pytest.FixtureRequest, platform: Engine) -> Iterator[Any]:
    """A Django process whose default database is the books, with and without time zones."""
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


def test_django_commit_includes_the_hold(platform: Engine, django: Any) -> None:
    """In atomic(), the hold is committed with the platform's row, not before."""
    with transaction.atomic():
        with django.cursor() as cursor:
            cursor.execute("INSERT INTO public.invoice VALUES ('invoice-1')")
        added = add_invoice(django.connection)

        assert invoices_and_holds(platform) == (0, 0)

    assert invoices_and_holds(platform) == (1, 1)
    assert added.release_date == DAY_7


def test_django_rollback_includes_the_hold(platform: Engine, django: Any) -> None:
    """An exception in atomic() undoes the hold with the platform's row."""

    @transaction.atomic  # type: ignore[untyped-decorator]
    def order() -> None:
        with django.cursor() as cursor:
            cursor.execute("INSERT INTO public.invoice VALUES ('invoice-1')")
        add_invoice(django.connection)
        raise RuntimeError("the card was declined")

    with pytest.raises(RuntimeError, match="the card was declined"):
        order()

    assert invoices_and_holds(platform) == (0, 0)


def test_django_savepoint_rollback_includes_the_hold(platform: Engine, django: Any) -> None:
    """An inner atomic() that fails undoes only its own hold."""

    @transaction.atomic  # type: ignore[untyped-decorator]
    def second_order() -> None:
        add_invoice(django.connection, reference="invoice-2")
        raise RuntimeError("the card was declined")

    with transaction.atomic():
        add_invoice(django.connection)
        with pytest.raises(RuntimeError, match="the card was declined"):
            second_order()

    assert invoices_and_holds(platform) == (0, 1)


def test_django_autocommit_is_refused_outside_atomic(platform: Engine, django: Any) -> None:
    """Django's default, a commit after every statement, is refused before anything is written."""
    django.ensure_connection()

    with pytest.raises(PaymentBufferError, match="in autocommit and outside a transaction"):
        add_invoice(django.connection)

    assert invoices_and_holds(platform) == (0, 0)


def test_every_verb_runs_on_djangos_connection(platform: Engine, django: Any) -> None:
    """The verbs work with Django's cursors, types and time zones."""
    with transaction.atomic():
        assert every_verb(django.connection) == EVERY_VERB_LEAVES

    with platform.connect() as books:
        assert wallet_of(books, PAYEE) == Wallet(pending_earnings_minor=100_000)
