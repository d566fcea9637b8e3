"""What breaks in the middle: processes, backends, servers, connections, disks. Nothing is lost or doubled."""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Event, Semaphore
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.database import make_engine
from buffer_pipeline.drain import drain_matured
from buffer_pipeline.embedded import EmbeddedServer, embedded_server
from buffer_pipeline.errors import Refused
from buffer_pipeline.freeze import Freeze, freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.intake import Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import ReleaseBatch, release_early
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.builders import (
    ADMIN,
    DAY_7,
    JOB,
    PAYEE,
    PAYER,
    WAIT_SECONDS_MAX,
    books,
    end_state,
    open_freezes,
    place_hold,
)
from buffer_pipeline_tests.cluster import Cluster, new_cluster, tiny_disk
from buffer_pipeline_tests.conftest import NOON, fresh_books
from buffer_pipeline_tests.crasher import BATCH_LIMIT, at_each_boundary, drain
from buffer_pipeline_tests.proxy import cutting_proxy
from buffer_pipeline_tests.test_processes import COMMAND, finish, start, wait_until

HOLDS: Final = 2 * BATCH_LIMIT
STOPS: Final = 50

EndState = dict[str, list[tuple[Any, ...]]]


def hold_many(engine: Engine, holds: int, *, wallets: int) -> None:
    """Hold earnings of many sizes, all due at DAY_7, over some release hours."""
    with engine.begin() as connection:
        for first in range(0, holds, 5_000):
            add_many_pending_earnings(
                connection,
                [
                    Earning(
                        # In the order of the release dates, so that holds come in by it.
                        reference=f"earning-{3 - number % 3}-{number:05}",
                        job=f"job-{number}",
                        payee=f"worker-{number % wallets}",
                        payer=PAYER,
                        amount=f"{10 + number}.{number % 100:02d}",
                        currency="PHP",
                        held_at=NOON - timedelta(hours=number % 3),
                    )
                    for number in range(first, min(first + 5_000, holds))
                ],
                now=NOON,
            )


def end_of(engine: Engine) -> EndState:
    """Return how the books stand, which must be sound."""
    with engine.connect() as connection:
        assert reconcile(connection) == []
        return end_state(connection)


def released(engine: Engine) -> int:
    """Return how many holds are released."""
    with engine.connect() as connection:
        found: int = connection.execute(
            text("SELECT count(*) FROM buffer.transaction WHERE type = 'EARNING'")
        ).scalar_one()
        return found


@contextmanager
def engine_on(url: str) -> Iterator[Engine]:
    """Yield an engine on these books."""
    engine = make_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def due(server: EmbeddedServer) -> Iterator[str]:
    """The name of books with holds that are due, to copy from."""
    with fresh_books(server) as url:
        with engine_on(url) as engine:
            hold_many(engine, HOLDS, wallets=7)
        yield url.partition("?")[0].rpartition("/")[2]


@pytest.fixture(scope="module")
def undisturbed(server: EmbeddedServer, due: str) -> EndState:
    """How these books stand behind a release that nothing disturbed."""
    with fresh_books(server, due) as url, engine_on(url) as engine:
        drain(engine)
        return end_of(engine)


def failure(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit code of a command that failed, and the one line that it said."""
    out, err = process.communicate(timeout=WAIT_SECONDS_MAX)
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert "Traceback" not in out
    return process.returncode, lines[0]


# ---- the releasing process, and its backend, at each boundary between two statements


@pytest.fixture
def crasher() -> Iterator[Callable[[str, int, int], int]]:
    """Drain in a process that dies at a boundary; its exit code."""
    process = subprocess.Popen(
        [sys.executable, "-m", "buffer_pipeline_tests.crasher"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def crash(url: str, limit: int, at: int) -> int:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{url} {limit} {at}\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    yield crash
    process.communicate(timeout=WAIT_SECONDS_MAX)
    assert process.returncode == 0


def alone(engine: Engine) -> bool:
    """Return whether nobody else is connected: what was killed has let go of its locks."""
    with engine.connect() as connection:
        found: bool = connection.execute(
            text(
                "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
                " AND backend_type = 'client backend' AND pid <> pg_backend_pid())"
            )
        ).scalar_one()
        return found


@pytest.mark.parametrize("limit", [0, HOLDS], ids=["a stretch at a time", "by what is locked first"])
def test_process_killed_at_any_boundary_is_made_up_for_by_the_next_run(
    server: EmbeddedServer,
    due: str,
    undisturbed: EndState,
    crasher: Callable[[str, int, int], int],
    limit: int,
) -> None:
    """SIGKILL just before and just behind each statement and COMMIT of a run: whole batches stand, the
    books are sound, and behind the next run they are as if nothing had happened.
    """
    exit_codes: list[int] = []
    left = set()
    while not exit_codes or exit_codes[-1] != 0:
        at = len(exit_codes) + 1
        with fresh_books(server, due) as url, engine_on(url) as engine:
            exit_codes.append(crasher(url, limit, at))
            wait_until(partial(alone, engine))
            end_of(engine)
            left.add(released(engine))

            drain(engine)

            assert end_of(engine) == undisturbed, f"boundary {at}"

    assert set(exit_codes[:-1]) == {-9}
    assert left == {0, BATCH_LIMIT, HOLDS}


def terminate(admin: "psycopg.Connection[Any]", at: int, number: int, connection: Any) -> None:
    """End a connection's backend at the boundary `at`."""
    if number == at:
        pid = connection.info.backend_pid
        assert admin.execute("SELECT pg_terminate_backend(%s)", [pid]).fetchone() == (True,)
        # PostgreSQL's own waiting looks ten times a second.
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while admin.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone() is not None:
            assert time.monotonic() < deadline, f"process {pid} does not end"
            time.sleep(0.002)


@pytest.mark.parametrize("limit", [None, HOLDS], ids=["a stretch at a time", "by what is locked first"])
def test_backend_terminated_at_any_boundary_is_made_up_for_by_the_next_run(
    server: EmbeddedServer, due: str, undisturbed: EndState, limit: int | None
) -> None:
    """pg_terminate_backend just before and just behind each statement and COMMIT of a run: it ends with the
    database's error, and behind the next run the books are as if nothing had happened.
    """
    boundaries: list[int] = []
    with fresh_books(server, due) as url, engine_on(url) as engine:
        at_each_boundary(engine, lambda number, _connection: boundaries.append(number))
        drain(engine, limit=limit)
    admin_url = server.url("postgres", user="postgres").set(drivername="postgresql")
    left, ended = set(), []
    with psycopg.connect(admin_url.render_as_string(), autocommit=True) as admin:
        for at in boundaries:
            with fresh_books(server, due) as url, engine_on(url) as engine:
                with engine_on(url) as doomed:
                    at_each_boundary(doomed, partial(terminate, admin, at))
                    try:
                        drain(doomed, limit=limit)
                    except OperationalError as error:
                        ended.append(str(error.orig))
                end_of(engine)
                left.add(released(engine))

                drain(engine)

                assert end_of(engine) == undisturbed, f"boundary {at}"

    # Behind the last COMMIT nothing is asked of the backend any more.
    assert len(ended) == len(boundaries) - 1
    assert left == {0, BATCH_LIMIT, HOLDS}


# ---- the server


@pytest.fixture
def cluster(programs_and_user: tuple[Path, str | None]) -> Iterator[Cluster]:
    """A server that may be stopped; no more than a dozen connections."""
    programs, user = programs_and_user
    with new_cluster(programs, user=user, settings={"max_connections": "12"}) as cluster:
        yield cluster


def require_sound_files(cluster: Cluster, database: str) -> None:
    """Let pg_amcheck compare every table and index of the books with each other, row by row."""
    said = cluster.run(
        "pg_amcheck",
        f"--host={cluster.folder}",
        "--username=postgres",
        f"--database={database}",
        "--install-missing",
        "--heapallindexed",
        "--parent-check",
        "--rootdescend",
    )
    assert said == ""


def test_server_that_crashes_fifty_times_during_a_drain_loses_and_doubles_nothing(cluster: Cluster) -> None:
    """`pg_ctl stop -m immediate` at any moment of a drain, fifty times: what the drain was told is
    committed stands after the restart, and in the end the books are as if nothing had happened.
    """
    batch_limit, batches_max = 10, 40
    holds = STOPS * batches_max * batch_limit
    chance = random.Random(50)
    with engine_on(cluster.server.books_url.render_as_string()) as engine:
        hold_many(engine, holds, wallets=50)
    with fresh_books(cluster.server) as url, engine_on(url) as engine:
        # A copy of them, since the server's own are the ones to copy from.
        drain(engine)
        undisturbed = end_of(engine)
    told: list[int] = []

    with engine_on(cluster.server.books_url.render_as_string()) as engine, ThreadPoolExecutor(1) as threads:
        for _ in range(STOPS):
            wanted, come = chance.randrange(1, 8), Event()
            room = Semaphore(batches_max)
            begun = len(told)

            def after_batch(
                batch: ReleaseBatch,
                wanted: int = wanted + begun,
                come: Event = come,
                room: Semaphore = room,
            ) -> None:
                told.append(batch.holds_released)
                if len(told) >= wanted:
                    come.set()
                # On a fast machine there must be something left for the next stop.
                room.acquire()

            running = threads.submit(
                drain_matured,
                engine,
                due_by=DAY_7,
                source="a test",
                batch_limit=batch_limit,
                clock=lambda _connection: DAY_7,
                after_batch=after_batch,
            )
            assert come.wait(timeout=WAIT_SECONDS_MAX)
            cluster.stop("immediate")
            room.release(holds)
            with pytest.raises(OperationalError):
                running.result(timeout=WAIT_SECONDS_MAX)
            cluster.start()
            # One more batch at most was committed without a word.
            assert sum(told) <= released(engine) <= sum(told) + batch_limit
            told[-1:] = [told[-1] + released(engine) - sum(told)]
        left = holds - sum(told)

        drain(engine)

        assert left > 0
        assert end_of(engine) == undisturbed
    require_sound_files(cluster, "buffer")


# ---- the connection, behind COMMIT and before the answer


def test_release_whose_answer_was_lost_is_made_up_for_by_the_next_run(
    server: EmbeddedServer, due: str, undisturbed: EndState
) -> None:
    """Cut off at the answer to any COMMIT of a run: it ends with an error, what it was not told of stands,
    and behind the next run the books are as if nothing had happened.
    """
    left, cut_at, cuts = set(), 0, 1
    while cuts:
        cut_at += 1
        with fresh_books(server, due) as url, engine_on(url) as engine:
            with cutting_proxy(url, cut_at=cut_at) as (through, proxy), engine_on(through) as doomed:
                try:
                    drain(doomed)
                except OperationalError:
                    assert proxy.cuts == 1
                else:
                    assert proxy.cuts == 0
            cuts = proxy.cuts
            end_of(engine)
            left.add(released(engine))

            drain(engine)

            assert end_of(engine) == undisturbed, f"COMMIT {cut_at}"

    assert left == {0, BATCH_LIMIT, HOLDS}


NOW: Final = NOON + timedelta(days=1)


def _add(connection: Connection) -> object:
    return add_pending_earnings(
        connection,
        reference="earning-new",
        job="job-9",
        payee=PAYEE,
        payer=PAYER,
        amount="10.00",
        currency="PHP",
        now=NOW,
    )


def _deposit(connection: Connection) -> object:
    return deposit(connection, owner=PAYEE, amount="5.00", currency="PHP", reference="in-1", now=NOW)


def _withdraw(connection: Connection) -> object:
    return withdraw(connection, owner=PAYEE, amount="5.00", currency="PHP", reference="out-1", now=NOW)


def _refund(connection: Connection, *, amount: str | None = None) -> object:
    return refund_hold(
        connection,
        hold_id=_named(connection, "suspect"),
        by=ADMIN,
        reason="a fraud",
        reference="back-1",
        now=NOW,
        amount=amount,
    )


def _refund_a_part(connection: Connection) -> object:
    return _refund(connection, amount="300.00")


def _add_to_a_backjob(connection: Connection) -> object:
    # By add_holds, buffer_holds and cover_holds: the one statement of add_hold is for others.
    return add_pending_earnings(
        connection,
        reference="earning-late",
        job="job-asked",
        payee="worker-late",
        payer=PAYER,
        amount="10.00",
        currency="PHP",
        now=NOW,
    )


MONEY: Final = (_add, _deposit, _withdraw, _refund, _refund_a_part, _add_to_a_backjob)


def make_ready(connection: Connection) -> None:
    """Write a balance, a hold that an admin keeps frozen and a job with an open backjob."""
    place_hold(connection, state=HoldState.RELEASED)
    place_hold(connection, state=HoldState.FROZEN, job="job-suspect", reference="suspect")
    place_hold(connection, job="job-asked")
    request_backjob(connection, job="job-asked", by=PAYER, reason="it leaks", now=NOON)


@pytest.fixture(scope="module")
def ready(server: EmbeddedServer) -> Iterator[str]:
    """The name of books that each verb of MONEY can be asked of, to copy from."""
    with fresh_books(server) as url:
        with engine_on(url) as engine, engine.begin() as connection:
            make_ready(connection)
        yield url.partition("?")[0].rpartition("/")[2]


@pytest.mark.parametrize("verb", MONEY)
def test_backend_terminated_at_any_boundary_of_a_verb_leaves_all_or_nothing(
    server: EmbeddedServer, ready: str, verb: Callable[[Connection], Any]
) -> None:
    """pg_terminate_backend just before and just behind each statement and COMMIT: the books are as they were
    or as they were to be, and asked again the verb leaves them so.
    """
    boundaries: list[int] = []
    with fresh_books(server, ready) as url, engine_on(url) as engine:
        before = end_of(engine)
        with engine_on(url) as watched:
            at_each_boundary(watched, lambda number, _connection: boundaries.append(number))
            with watched.begin() as connection:
                verb(connection)
        done = end_of(engine)
    admin_url = server.url("postgres", user="postgres").set(drivername="postgresql")
    found = []
    with psycopg.connect(admin_url.render_as_string(), autocommit=True) as admin:
        for at in boundaries:
            with fresh_books(server, ready) as url, engine_on(url) as engine:
                with engine_on(url) as doomed:
                    at_each_boundary(doomed, partial(terminate, admin, at))
                    with suppress(OperationalError), doomed.begin() as connection:
                        verb(connection)
                found.append(end_of(engine))

                with engine.begin() as connection:
                    verb(connection)

                assert end_of(engine) == done, f"boundary {at}"

    # Behind the COMMIT there is one boundary more.
    assert [state == before for state in found] == [True] * (len(boundaries) - 1) + [False]
    assert found[-1] == done


@pytest.mark.parametrize("verb", MONEY)
def test_money_whose_answer_was_lost_is_sent_again_by_its_reference(
    engine: Engine, database_url: str, verb: Callable[[Connection], Any]
) -> None:
    """Cut off behind COMMIT, the caller sends the same again and gets the first one; nothing is written."""
    with engine.begin() as connection:
        make_ready(connection)
    with (
        cutting_proxy(database_url, cut_at=1) as (through, _),
        engine_on(through) as cut_off,
        pytest.raises(OperationalError),
        cut_off.begin() as connection,
    ):
        verb(connection)
    with engine.connect() as connection:
        before = books(connection)

    with engine.begin() as connection:
        again = verb(connection)

    assert again.replayed
    with engine.connect() as connection:
        assert books(connection) == before
        assert reconcile(connection) == []


KEYED: Final[dict[str, Callable[..., Any]]] = {
    "request a backjob": lambda connection, **key: request_backjob(
        connection, job=JOB, by=PAYER, reason="it leaks", now=NOW, **key
    ),
    "reject": lambda connection, **key: reject_backjob(connection, **_decision(connection), **key),
    "approve": lambda connection, **key: approve_backjob(connection, **_decision(connection), **key),
    "approve a part": lambda connection, **key: approve_backjob(
        connection, **_decision(connection), amount="300.00", **key
    ),
    "withdraw the backjob": lambda connection, **key: withdraw_backjob(
        connection, **_decision(connection), **key
    ),
    "unfreeze": lambda connection, **key: unfreeze_hold(
        connection, freeze_id=_first(connection, "hold_freeze"), by=ADMIN, reason="fine", now=NOW, **key
    ),
}
"""Decisions that may come with a reference."""

DECISIONS: Final[dict[str, Callable[..., Any]]] = {
    "release early": lambda connection: release_early(
        connection, hold_id=_first(connection, "hold"), by=PAYER, reason="well done", now=NOW
    ),
    **KEYED,
}


def _first(connection: Connection, table: str) -> int:
    column = {"hold_freeze": "freeze_id"}.get(table, f"{table}_id")
    found: int = connection.execute(text(f"SELECT min({column}) FROM buffer.{table}")).scalar_one()
    return found


def _named(connection: Connection, reference: str) -> int:
    found: int = connection.execute(
        text("SELECT hold_id FROM buffer.hold WHERE reference = :reference"), {"reference": reference}
    ).scalar_one()
    return found


def _decision(connection: Connection) -> dict[str, Any]:
    return {"backjob_id": _first(connection, "backjob"), "by": ADMIN, "reason": "looked at", "now": NOW}


def make_ready_for(connection: Connection, name: str) -> None:
    """Write what a decision is about."""
    place_hold(connection, state=HoldState.FROZEN if name == "unfreeze" else HoldState.BUFFERED)
    if name in {"reject", "approve", "approve a part", "withdraw the backjob"}:
        request_backjob(connection, job=JOB, by=PAYER, reason="it leaks", now=NOON)


@pytest.mark.parametrize("name", DECISIONS)
def test_decision_whose_answer_was_lost_is_refused_the_second_time(
    engine: Engine, database_url: str, name: str
) -> None:
    """Cut off behind COMMIT, the caller asks again: what was decided stands, and nothing is written."""
    with engine.begin() as connection:
        make_ready_for(connection, name)
    with (
        cutting_proxy(database_url, cut_at=1) as (through, _),
        engine_on(through) as cut_off,
        pytest.raises(OperationalError),
        cut_off.begin() as connection,
    ):
        DECISIONS[name](connection)
    with engine.connect() as connection:
        before = books(connection)

    with pytest.raises(Refused), engine.begin() as connection:
        DECISIONS[name](connection)

    with engine.connect() as connection:
        assert books(connection) == before
        assert reconcile(connection) == []


@pytest.mark.parametrize("name", [*KEYED, "freeze"])
def test_decision_with_a_reference_whose_answer_was_lost_is_replayed(
    engine: Engine, database_url: str, name: str
) -> None:
    """Cut off behind COMMIT, the caller asks again by the same reference and gets the first answer."""
    verb = KEYED.get(name, _freeze)
    with engine.begin() as connection:
        make_ready_for(connection, name)
    with (
        cutting_proxy(database_url, cut_at=1) as (through, _),
        engine_on(through) as cut_off,
        pytest.raises(OperationalError),
        cut_off.begin() as connection,
    ):
        verb(connection, reference="key-1")
    with engine.connect() as connection:
        before = books(connection)

    with engine.begin() as connection:
        again = verb(connection, reference="key-1")

    assert again.replayed
    with engine.connect() as connection:
        assert books(connection) == before
        assert reconcile(connection) == []


def _freeze(connection: Connection, *, reference: str | None = None) -> Freeze:
    return freeze_hold(
        connection,
        hold_id=_first(connection, "hold"),
        kind=FreezeKind.RISK,
        by=ADMIN,
        reason="hm",
        now=NOW,
        reference=reference,
    )


def test_freeze_without_a_reference_whose_answer_was_lost_stands_twice_when_it_is_sent_again(
    engine: Engine, database_url: str
) -> None:
    """Freezes stack: who asks again without a reference has two to close, and no money has moved."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    with (
        cutting_proxy(database_url, cut_at=1) as (through, _),
        engine_on(through) as cut_off,
        pytest.raises(OperationalError),
        cut_off.begin() as connection,
    ):
        _freeze(connection)
    with engine.begin() as connection:
        _freeze(connection)

    with engine.connect() as connection:
        assert open_freezes(connection, hold_id) == ["RISK", "RISK"]
        assert reconcile(connection) == []


def test_command_whose_answer_was_lost_says_so_in_a_line(
    server: EmbeddedServer, due: str, undisturbed: EndState
) -> None:
    """A release by the command line that is cut off ends with one line and 1; the next one goes on."""
    with fresh_books(server, due) as url, engine_on(url) as engine:
        # What it reads before its first batch is a COMMIT too.
        with cutting_proxy(url, cut_at=2) as (through, proxy):
            code, line = failure(start("release", BUFFER_DATABASE_URL=through))
            assert proxy.cuts == 1

        drain(engine)

        assert (code, line.partition(":")[0]) == (1, "database")
        assert "closed the connection" in line
        assert end_of(engine) == undisturbed


# ---- the disk


TINY_DISK_BYTES: Final = 48 * 2**20


@pytest.fixture(name="tiny_disk")
def a_tiny_disk() -> Iterator[Path]:
    """A file system that is soon full, for the server's user."""
    with tiny_disk(TINY_DISK_BYTES) as disk:
        yield disk


def fill(disk: Path) -> Path:
    """Fill the disk to its last byte; return the file that does."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - it ends the loop
    return filler


def test_full_disk_is_said_and_nothing_is_half_done(cluster: Cluster, tiny_disk: Path) -> None:
    """Where the tables have no room to grow, a release ends with one line that says so and 1: the books
    are as they were, and once there is room the next release takes all.
    """
    folder = tiny_disk / "tables"
    folder.mkdir()
    if cluster.user is not None:
        shutil.chown(folder, cluster.user, cluster.user)
    holds = 5_000
    with psycopg.connect(
        cluster.server.url("postgres", user="postgres").set(drivername="postgresql").render_as_string(),
        autocommit=True,
    ) as admin:
        admin.execute(f"CREATE TABLESPACE tiny LOCATION '{folder}'")
        admin.execute("CREATE DATABASE books TEMPLATE buffer OWNER buffer TABLESPACE tiny")
    url = cluster.server.url("books").render_as_string()
    with engine_on(url) as engine:
        hold_many(engine, holds, wallets=50)
        before = end_of(engine)
        filler = fill(tiny_disk)

        code, line = failure(start("release", BUFFER_DATABASE_URL=url))

        assert code == 1
        assert line.startswith("database: could not extend file")
        assert line.endswith("No space left on device")
        assert end_of(engine) == before
        filler.unlink()
        answer = json.loads(finish(start("release", "--json", BUFFER_DATABASE_URL=url)))
        assert answer["holds_released"] == holds
        end_of(engine)
        assert released(engine) == holds
    require_sound_files(cluster, "books")


def test_full_disk_of_the_log_is_said_and_nothing_is_half_done(
    programs_and_user: tuple[Path, str | None], tiny_disk: Path
) -> None:
    """Where the write-ahead log has no room the server goes down, and a release ends with one line and 1:
    what it had committed stands, and once there is room and a server the next release takes the rest.
    """
    programs, user = programs_and_user
    holds = 5_000
    folder = tiny_disk / "log"
    folder.mkdir()
    if user is not None:
        shutil.chown(folder, user, user)
    # Nothing is removed or used again, so the log grows with what is written.
    settings = {"min_wal_size": "2MB", "max_wal_size": "1GB", "wal_recycle": "off"}
    with new_cluster(programs, user=user, settings=settings, wal_folder=folder) as cluster:
        url = cluster.server.books_url.render_as_string()
        with engine_on(url) as engine:
            hold_many(engine, holds, wallets=50)
        filler = fill(tiny_disk)

        code, line = failure(start("release", BUFFER_DATABASE_URL=url))
        with suppress(AssertionError):  # It may have given up by itself.
            cluster.stop("immediate")
        filler.unlink()
        cluster.start()

        assert code == 1
        assert line.startswith("database: ")
        with engine_on(url) as engine:
            end_of(engine)
            left = holds - released(engine)
            answer = json.loads(finish(start("release", "--json", BUFFER_DATABASE_URL=url)))
            assert answer["holds_released"] == left > 0
            end_of(engine)
        require_sound_files(cluster, "buffer")


@pytest.mark.parametrize("command", ["release --json", "release", "hold list", "reconcile"])
def test_answer_that_finds_a_full_disk_is_said(
    server: EmbeddedServer, due: str, undisturbed: EndState, command: str
) -> None:
    """A command whose stdout is a file on a full disk ends with one line and 1; what it did stands."""
    with fresh_books(server, due) as url, engine_on(url) as engine:
        with Path("/dev/full").open("w") as full:
            environment = {**os.environ, "BUFFER_DATABASE_URL": url}
            environment.pop("PYTHONUNBUFFERED", None)
            done = subprocess.run(
                [*COMMAND, *command.split()],
                env=environment,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )

        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == "output: No space left on device; what was committed stands"
        assert "Traceback" not in done.stderr
        assert released(engine) == (HOLDS if command.startswith("release") else 0)
        drain(engine)
        assert end_of(engine) == undisturbed


# ---- connections


@pytest.mark.parametrize("limit", [0, 3])
def test_out_of_connections_is_said_and_nothing_is_half_done(
    server: EmbeddedServer, due: str, undisturbed: EndState, limit: int
) -> None:
    """Where the database lets nobody in, or not all workers, a release ends with one line that says so;
    the next one goes on.
    """
    admin_url = server.url("postgres", user="postgres").set(drivername="postgresql")
    with (
        fresh_books(server, due) as url,
        psycopg.connect(admin_url.render_as_string(), autocommit=True) as admin,
    ):
        database = url.partition("?")[0].rpartition("/")[2]
        admin.execute(f"ALTER DATABASE {database} CONNECTION LIMIT {limit}")

        code, line = failure(start("release", "--workers", "7", BUFFER_DATABASE_URL=url))

        admin.execute(f"ALTER DATABASE {database} CONNECTION LIMIT -1")
        with engine_on(url) as engine:
            end_of(engine)
            drain(engine)
            assert end_of(engine) == undisturbed
    assert code == (2 if limit == 0 else 1)
    assert line.startswith("BUFFER_DATABASE_URL: " if limit == 0 else "database: ")
    assert f'too many connections for database "{database}"' in line


def test_server_out_of_connections_is_said(cluster: Cluster) -> None:
    """Where the whole server has no connection left, a command says so in one line."""
    url = cluster.server.books_url.render_as_string()
    dsn = cluster.server.books_url.set(drivername="postgresql").render_as_string()
    with ExitStack() as stack:
        with suppress(psycopg.OperationalError):
            for _ in range(50):
                stack.enter_context(psycopg.connect(dsn))

        code, line = failure(start("release", BUFFER_DATABASE_URL=url))

    assert code == 2
    assert line.startswith("BUFFER_DATABASE_URL: ")
    assert "connection slots" in line or "too many clients" in line


def test_embedded_server_out_of_connections_is_said() -> None:
    """Where the embedded server has no connection left, not even for its superuser, a command says so."""
    with ExitStack() as stack:
        # Not in pytest's own folder, out of which another run of pytest locks the server's user.
        home = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "home"
        running = stack.enter_context(embedded_server(home))
        dsn = running.url("postgres", user="postgres").set(drivername="postgresql").render_as_string()
        with suppress(psycopg.OperationalError):
            for _ in range(200):
                stack.enter_context(psycopg.connect(dsn))

        code, line = failure(start("hold", "list", BUFFER_HOME=str(home)))

    assert code == 1
    assert line.startswith("embedded PostgreSQL: ")
    assert "too many clients" in line
