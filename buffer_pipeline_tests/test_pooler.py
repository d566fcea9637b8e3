"""Commands and verbs by way of a real PgBouncer in transaction mode, with fewer sessions than clients."""

import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any, Final

import dagster as dg
import psycopg
import pytest
import typer
from django import setup as django_setup
from django.conf import settings
from django.db import connections, transaction
from sqlalchemy import Engine, create_engine, make_url, text

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.cli.app import app
from buffer_pipeline.database import AnyConnection, database_clock, make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.builders import ADMIN
from buffer_pipeline_tests.conftest import NOON, Books, fresh_books
from buffer_pipeline_tests.hostile import run_command
from buffer_pipeline_tests.pooler import Pooler, pgbouncer
from buffer_pipeline_tests.runs import outcomes, release, reported
from buffer_pipeline_tests.test_cli_books import EXPORT, WITHOUT_BOOKS, commands
from buffer_pipeline_tests.test_metrics import endpoint, series
from buffer_pipeline_tests.test_processes import (
    WAIT_SECONDS_MAX,
    figures,
    finish,
    hold_many,
    line_with,
    start,
    wait_until,
    waiting,
)
from buffer_pipeline_tests.work_of_roles import do_all

CLIENTS: Final = 8
ROUNDS: Final = 4
"""Each has six holds: a statement is executed more often than psycopg does before it prepares it."""

Begin = Callable[[], AbstractContextManager[AnyConnection]]
"""A transaction of a caller's own."""


@pytest.fixture(scope="module")
def pooler(server: EmbeddedServer) -> Iterator[Pooler]:
    """A pooler of two sessions before the session's server."""
    with pgbouncer(server) as running:
        yield running


@pytest.fixture
def pooled_url(pooler: Pooler, database_url: str) -> str:
    """The URL of fresh books by way of the pooler."""
    return pooler.url(database_url)


# ---- verbs, by each kind of caller


@contextmanager
def sqlalchemys(url: str) -> Iterator[Begin]:
    """A platform's own engine, with what docs/callers.md has it set."""
    engine = create_engine(url, connect_args={"prepare_threshold": None})
    yield engine.begin
    engine.dispose()


@contextmanager
def the_pipelines(url: str) -> Iterator[Begin]:
    """The engine that the commands and Dagster have."""
    engine = make_engine(url)
    yield engine.begin
    engine.dispose()


@contextmanager
def psycopgs(url: str) -> Iterator[Begin]:
    """A connection a client, as psycopg makes it."""
    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)

    @contextmanager
    def begin() -> Iterator[AnyConnection]:
        with psycopg.connect(dsn) as connection:
            yield connection

    yield begin


@contextmanager
def djangos(url: str) -> Iterator[Begin]:
    """Django's connections, with what docs/callers.md has it set."""
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
    """Run each verb in a transaction of its own, on jobs of the client's own."""
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
            asked = request_backjob(connection, job=f"{client}-{name}", by=payer, reason="hm", now=NOON)
        with begin() as connection:
            decide(connection, backjob_id=asked.backjob_id, by=ADMIN, reason="so be it", now=NOON)

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
def test_many_clients_call_every_verb_at_once(
    engine: Engine, pooled_url: str, caller: Callable[[str], AbstractContextManager[Begin]]
) -> None:
    """Four times as many clients as sessions: every call is answered, and the books are as if alone."""
    # The row of a new currency would have all of them wait for the first.
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
    """What each role may do, it does by way of the pooler, on the newest and the oldest server."""
    with pgbouncer(served) as pooler:
        pooled = Books(
            *(
                make_engine(pooler.url(roles.of(role).url))
                for role in ("owner", "platform", "releaser", "reader")
            )
        )

        do_all(pooled)

        for role in ("owner", "platform", "releaser", "reader"):
            pooled.of(role).dispose()


# ---- commands


EARNING: Final = "--payee worker-17 --payer client-3 --amount 10 --currency PHP"
DECIDED: Final = "--by admin-1 --reason agreed"
MOVED: Final = "--amount 5 --currency PHP"
LONG_AGO: Final = "--held-at 2026-01-05T00:00:00Z"

ON_NEW_BOOKS: Final = (
    "migrate",
    f"hold add --reference r-1 --job job-1 {EARNING} {LONG_AGO}",
    *(f"hold add --reference r-{number} --job job-{number} {EARNING}" for number in range(2, 7)),
    "hold import earnings.csv",
    "hold import whole.csv --all-or-nothing",
    "hold show 1",
    "hold list",
    "backjob request --job job-2 --by client-3 --reason drips",
    f"backjob reject 1 {DECIDED}",
    "backjob request --job job-3 --by client-3 --reason drips",
    f"backjob approve 2 {DECIDED}",
    "backjob request --job job-4 --by client-3 --reason drips",
    f"backjob withdraw 3 {DECIDED}",
    "backjob list",
    "release-now --hold 5 --by client-3 --reason agreed",
    f"freeze 6 --kind risk {DECIDED}",
    f"unfreeze 4 {DECIDED}",
    f"freeze 6 --kind admin {DECIDED}",
    "stuck",
    f"refund 6 {DECIDED} --reference refund-1",
    "release --dry-run",
    "release --workers 3",
    "release",
    "wallet show worker-17",
    "wallet statement worker-17",
    f"wallet deposit worker-17 {MOVED} --reference in",
    f"wallet withdraw worker-17 {MOVED} --reference out",
    "contact set worker-17 --locale fil_PH",
    "contact show worker-17",
    "notifications list",
    "notifications drain",
    "notifications replay --all",
    "report",
    "reconcile",
    "verify",
    "doctor",
)
"""Commands in an order in which each has something to do, on books whose first hold is hold 1."""

ON_EMPTY_BOOKS: Final = (
    "simulate --days 2 --seed 7",
    f"import-legacy {EXPORT}",
    f"shadow {EXPORT} {EXPORT} --at 2026-11-18T23:35Z",
)
SERVERS: Final = {"metrics", "dev"}
"""Those that run until somebody stops them."""


@contextmanager
def neighbours(url: str) -> Iterator[None]:
    """Let other clients take sessions in turn, so that no two transactions in a row have the same one."""
    engine, over = make_engine(url), Event()

    def take_turns() -> None:
        while not over.wait(0.005):
            with engine.begin() as connection:
                database_clock(connection)

    with ThreadPoolExecutor(3) as others:
        under_way = [others.submit(take_turns) for _ in range(3)]
        try:
            yield
        finally:
            over.set()
    for each in under_way:
        each.result()
    engine.dispose()


def test_every_command_works_through_a_pooler(
    pooler: Pooler,
    pooled_url: str,
    server: EmbeddedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each command does what it does, with the pooler's URL and nothing else set."""
    names = {name for name in commands(typer.main.get_command(app)) if name not in SERVERS | WITHOUT_BOOKS}
    tried = {
        name for name in names for line in ON_NEW_BOOKS + ON_EMPTY_BOOKS if f"{line} ".startswith(f"{name} ")
    }
    monkeypatch.chdir(tmp_path)
    for name in ("earnings", "whole"):
        lines = "".join(f"{name}-{number},{name},w-{number},c,1,PHP\n" for number in range(100))
        Path(f"{name}.csv").write_text("reference,job,payee,payer,amount,currency\n" + lines)

    monkeypatch.setenv("BUFFER_DATABASE_URL", pooled_url)
    with neighbours(pooled_url):
        for line in ON_NEW_BOOKS:
            done = run_command(*line.split(), "--json")
            # The doctor misses Dagster here, pooler or not.
            assert done.code == (1 if line == "doctor" else 0), (line, done)
            assert not done.out.startswith('{"error"'), (line, done)
    for line in ON_EMPTY_BOOKS:
        with fresh_books(server) as empty:
            monkeypatch.setenv("BUFFER_DATABASE_URL", pooler.url(empty))
            done = run_command(*line.split(), "--json")
            # What the two exports differ in is found, pooler or not.
            assert done.code == (1 if line.startswith("shadow") else 0), (line, done)
            assert not done.out.startswith('{"error"'), (line, done)

    assert tried == names


def test_releases_beside_each_other_share_two_sessions(engine: Engine, pooled_url: str) -> None:
    """Two processes of four workers each release each hold once, and seal what they wrote."""
    hold_many(engine, holds=6_000, wallets=300)

    processes = [
        start("release", "--workers", "4", "--json", BUFFER_DATABASE_URL=pooled_url) for _ in range(2)
    ]
    answers = [json.loads(finish(process)) for process in processes]

    assert sum(answer["holds_released"] for answer in answers) == 6_000
    assert figures(engine) == (6_000, 6_000, 6_000 * 1000, [])
    assert any(answer["anchor"] for answer in answers)


def test_another_ctrl_c_reaches_the_session_behind_the_pooler(engine: Engine, pooled_url: str) -> None:
    """The batch in hand is rolled back without waiting for the lock that it waits for."""
    hold_many(engine, holds=1_000, wallets=50)
    with engine.connect() as blocker:
        blocker.execute(text("SELECT FROM buffer.wallet FOR UPDATE"))
        process = start("release", BUFFER_DATABASE_URL=pooled_url)
        wait_until(lambda: waiting(engine) == 1)
        process.send_signal(signal.SIGINT)
        line_with(process, "Interrupted")

        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WAIT_SECONDS_MAX)
        waiting_at_the_end = waiting(engine)

    assert process.returncode == 130
    assert waiting_at_the_end == 0
    assert figures(engine) == (0, 0, 0, [])


def test_metrics_are_served_from_behind_a_pooler(engine: Engine, pooled_url: str) -> None:
    """Scrape after scrape has the books' figures."""
    hold_many(engine, holds=10, wallets=5)

    with endpoint(pooled_url) as scrape:
        seen: list[Any] = [scrape()[series("buffer_up")] for _ in range(3)]

    assert seen == [1.0] * 3


def test_a_run_in_dagster_releases_through_a_pooler(
    engine: Engine, pooled_url: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The books may stand behind a pooler where Dagster's own storage does not."""
    hold_many(engine, holds=2_000, wallets=50)
    monkeypatch.setenv("BUFFER_DATABASE_URL", pooled_url.replace("//buffer@", "//dagster@"))

    result = release(instance, workers=3)

    assert reported(result, "released_transactions")["holds_released"] == 2_000
    assert all(outcomes(result).values())
    assert figures(engine) == (2_000, 2_000, 2_000 * 1000, [])
