"""Verbs through a real PgBouncer in transaction mode, with fewer sessions than clients."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Final

import psycopg
import pytest
from django import setup as django_setup
from django.conf import settings
from django.db import connections, transaction
from sqlalchemy import Engine, create_engine, make_url, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.database import AnyConnection, make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.support.builders import ADMIN, NOON
from buffer_pipeline_tests.support.databases import ROLES, Books
from buffer_pipeline_tests.support.pooler import pgbouncer
from buffer_pipeline_tests.support.work_of_roles import do_all

CLIENTS: Final = 8
ROUNDS: Final = 4
"""Six holds per round, so statements run more often than psycopg's prepare threshold."""

Begin = Callable[[], AbstractContextManager[AnyConnection]]
"""Begins a caller's transaction."""


@contextmanager
def sqlalchemys(url: str) -> Iterator[Begin]:
    """A platform's engine, set up as in docs/callers.md."""
    engine = create_engine(url, connect_args={"prepare_threshold": None})
    yield engine.begin
    engine.dispose()


@contextmanager
def the_pipelines(url: str) -> Iterator[Begin]:
    """The engine of the commands and Dagster."""
    engine = make_engine(url)
    yield engine.begin
    engine.dispose()


@contextmanager
def psycopgs(url: str) -> Iterator[Begin]:
    """One psycopg connection per client, with the defaults."""
    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)

    @contextmanager
    def begin() -> Iterator[AnyConnection]:
        with psycopg.connect(dsn) as connection:
            yield connection

    yield begin


@contextmanager
def djangos(url: str) -> Iterator[Begin]:
    """Django's connections, set up as in docs/callers.md."""
    if not settings.configured:
        settings.configure(LOGGING_CONFIG=None)
        django_setup()
    found, before = make_url(url), connections.settings
    connections.settings = connections.configure_settings(
        {
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": found.database,
                "USER": found.username,
                "HOST": found.query["host"],
                "PORT": found.query["port"],
                "DISABLE_SERVER_SIDE_CURSORS": True,
            }
        }
    )

    @contextmanager
    def begin() -> Iterator[AnyConnection]:
        with transaction.atomic():
            yield connections["default"].connection

    yield begin
    connections.settings = before


def every_verb(begin: Begin, client: str) -> None:
    """Run each verb in a separate transaction, on the client's own jobs."""
    payer = f"client-{client}"

    def add(name: str, *, days_ago: int = 0) -> int:
        with begin() as connection:
            return add_pending_earnings(
                connection,
                reference=f"{client}-{name}",
                job=f"{client}-{name}",
                payee=f"worker-{client}",
                payer=payer,
                amount="10.00",
                currency="PHP",
                held_at=NOON - timedelta(days=days_ago),
                now=NOON,
            ).hold_id

    def backjob(name: str, decide: Callable[..., object]) -> None:
        add(name)
        with begin() as connection:
            requested = request_backjob(connection, job=f"{client}-{name}", by=payer, reason="hm", now=NOON)
        with begin() as connection:
            decide(connection, backjob_id=requested.backjob_id, by=ADMIN, reason="so be it", now=NOON)

    add("due", days_ago=8)
    backjob("rejected", reject_backjob)
    backjob("approved", approve_backjob)
    backjob("withdrawn", withdraw_backjob)
    early, frozen = add("early"), add("frozen")
    with begin() as connection:
        release_early(connection, hold_id=early, by=payer, reason="well done", now=NOON)
    for name in ("first", "second"):
        with begin() as connection:
            freeze = freeze_hold(
                connection, hold_id=frozen, kind=FreezeKind.RISK, by=ADMIN, reason=name, now=NOON
            )
        if name == "first":
            with begin() as connection:
                unfreeze_hold(connection, freeze_id=freeze.freeze_id, by=ADMIN, reason="fine", now=NOON)
    with begin() as connection:
        refund_hold(
            connection, hold_id=frozen, by=ADMIN, reason="stolen", reference=f"{client}-refund", now=NOON
        )
    with begin() as connection:
        team = [
            Earning(
                reference=f"{client}-team-{number}",
                job=f"{client}-team",
                payee=f"worker-{client}-{number}",
                payer=payer,
                amount="10.00",
                currency="PHP",
            )
            for number in range(2)
        ]
        add_many_pending_earnings(connection, team, now=NOON)
    with begin() as connection:
        release_matured(connection, now=NOON, batch_limit=1_000)
    for move, reference in ((deposit, "deposit"), (withdraw, "withdrawal")):
        with begin() as connection:
            move(
                connection,
                owner=f"worker-{client}",
                amount="5.00",
                currency="PHP",
                reference=f"{client}-{reference}",
                now=NOON,
            )


@pytest.mark.parametrize("caller", [the_pipelines, sqlalchemys, psycopgs, djangos])
def test_many_clients_share_few_sessions(
    engine: Engine, pooled_url: str, caller: Callable[[str], AbstractContextManager[Begin]]
) -> None:
    """Four clients per session call every verb. Every call returns, and the books are as for a
    single client.
    """
    # The row of a new currency would make all clients wait for the first one.
    with engine.begin() as connection:
        deposit(connection, owner="client-3", amount="1", currency="PHP", reference="first", now=NOON)

    with caller(pooled_url) as begin, ThreadPoolExecutor(CLIENTS) as clients:

        def rounds(number: int) -> None:
            for turn in range(ROUNDS):
                every_verb(begin, f"{number}-{turn}")
            if caller is djangos:
                connections.close_all()

        for done in [clients.submit(rounds, number) for number in range(CLIENTS)]:
            done.result()
        with begin() as last:
            release_matured(last, now=NOON, batch_limit=1_000)

    of_each = CLIENTS * ROUNDS
    with engine.connect() as connection:
        states = connection.execute(text("SELECT state, count(*) FROM buffer.hold_status GROUP BY state"))
        assert dict(states.all()) == {
            "RELEASED": 2 * of_each,
            "REFUNDED": 2 * of_each,
            "BUFFERED": 4 * of_each,
        }
        assert not list(reconcile(connection))


def test_all_work_of_all_roles_goes_through_a_pooler(roles: Books, served: EmbeddedServer) -> None:
    """The statements of each role, on the newest and the oldest server."""
    with pgbouncer(served) as pooler:
        pooled = Books(*(make_engine(pooler.url(roles.of(role).url)) for role in ("owner", *ROLES)))

        do_all(pooled)

        for role in ("owner", *ROLES):
            pooled.of(role).dispose()
