"""A process or its backend that dies between any two statements leaves whole batches and whole verbs."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.errors import PayoutRefused
from buffer_pipeline_tests.support.builders import WAIT_SECONDS_MAX
from buffer_pipeline_tests.support.crasher import BATCH_LIMIT, at_each_boundary, drain
from buffer_pipeline_tests.support.crashes import HOLDS, EndState, end_of, engine_on, released
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.money_books import make_ready
from buffer_pipeline_tests.support.money_verbs import MONEY, REFUSED_AGAIN
from buffer_pipeline_tests.support.processes import wait_until

# ---- the releasing process and its backend, at each boundary between two statements


@pytest.fixture
def crasher() -> Iterator[Callable[[str, int, int], int]]:
    """Run a drain in a process that dies at a boundary; return its exit code."""
    process = subprocess.Popen(
        [sys.executable, "-m", "buffer_pipeline_tests.support.crasher"],
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
    """Return True if no other session is connected: the killed process has released its locks."""
    with engine.connect() as connection:
        found: bool = connection.execute(
            text(
                "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
                " AND backend_type = 'client backend' AND pid <> pg_backend_pid())"
            )
        ).scalar_one()
        return found


@pytest.mark.parametrize("limit", [0, HOLDS], ids=["a range at a time", "by what is locked first"])
def test_next_run_completes_a_run_whose_process_was_killed(
    server: EmbeddedServer,
    due_books: str,
    undisturbed: EndState,
    crasher: Callable[[str, int, int], int],
    limit: int,
) -> None:
    """SIGKILL before and after each statement and COMMIT of a run. Whole batches are committed, the books are
    sound, and after the next run they are as after an undisturbed release.
    """
    exit_codes: list[int] = []
    left = set()
    while not exit_codes or exit_codes[-1] != 0:
        at = len(exit_codes) + 1
        with fresh_books(server, due_books) as url, engine_on(url) as engine:
            exit_codes.append(crasher(url, limit, at))
            wait_until(partial(alone, engine))
            end_of(engine)
            left.add(released(engine))

            drain(engine)

            assert end_of(engine) == undisturbed, f"boundary {at}"

    assert set(exit_codes[:-1]) == {-9}
    assert left == {0, BATCH_LIMIT, HOLDS}


def terminate(admin: "psycopg.Connection[Any]", at: int, number: int, connection: Any) -> None:
    """Terminate a connection's backend at the boundary `at`."""
    if number == at:
        pid = connection.info.backend_pid
        assert admin.execute("SELECT pg_terminate_backend(%s)", [pid]).fetchone() == (True,)
        # PostgreSQL's own wait polls ten times a second.
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while admin.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone() is not None:
            assert time.monotonic() < deadline, f"process {pid} does not end"
            time.sleep(0.002)


@pytest.mark.parametrize("limit", [None, HOLDS], ids=["a range at a time", "by what is locked first"])
def test_next_run_completes_a_run_whose_backend_was_terminated(
    server: EmbeddedServer, due_books: str, undisturbed: EndState, limit: int | None
) -> None:
    """pg_terminate_backend before and after each statement and COMMIT of a run. The run ends with the
    database's error, and after the next run the books are as after an undisturbed release.
    """
    boundaries: list[int] = []
    with fresh_books(server, due_books) as url, engine_on(url) as engine:
        at_each_boundary(engine, lambda number, _connection: boundaries.append(number))
        drain(engine, limit=limit)
    admin_url = server.url("postgres", user="postgres").set(drivername="postgresql")
    left, ended = set(), []
    with psycopg.connect(admin_url.render_as_string(), autocommit=True) as admin:
        for at in boundaries:
            with fresh_books(server, due_books) as url, engine_on(url) as engine:
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

    # After the last COMMIT the backend gets no further statement.
    assert len(ended) == len(boundaries) - 1
    assert left == {0, BATCH_LIMIT, HOLDS}


# ---- the backend of a verb


@pytest.fixture(scope="module")
def ready(server: EmbeddedServer) -> Iterator[str]:
    """The name of a database on which each verb of MONEY can be called, to copy from."""
    with fresh_books(server) as url:
        with engine_on(url) as engine, engine.begin() as connection:
            make_ready(connection)
        yield url.partition("?")[0].rpartition("/")[2]


@pytest.mark.parametrize("verb", [*MONEY, *REFUSED_AGAIN])
def test_backend_terminated_at_any_boundary_of_a_verb_leaves_all_or_nothing(
    server: EmbeddedServer, ready: str, verb: Callable[[Connection], Any]
) -> None:
    """pg_terminate_backend before and after each statement and COMMIT. The books are unchanged or complete,
    and a repeated call leaves them complete, or is refused after the COMMIT.
    """
    boundaries: list[int] = []
    with fresh_books(server, ready) as url, engine_on(url) as engine:
        before = end_of(engine)
        with engine_on(url) as watched:
            at_each_boundary(watched, lambda number, _connection: boundaries.append(number))
            with watched.begin() as connection:
                verb(connection)
        done = end_of(engine)
    refused = pytest.raises(PayoutRefused) if verb in REFUSED_AGAIN else nullcontext()
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

                with refused if found[-1] == done else nullcontext(), engine.begin() as connection:
                    verb(connection)

                assert end_of(engine) == done, f"boundary {at}"

    # There is one more boundary after the COMMIT.
    assert [state == before for state in found] == [True] * (len(boundaries) - 1) + [False]
    assert found[-1] == done
