"""What breaks in the middle: processes, backends, servers, connections, disks. Nothing is lost or doubled."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event, Semaphore
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.database import make_engine
from buffer_pipeline.drain import drain_matured
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.errors import Refused
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.intake import Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.release import ReleaseBatch, release_early
from buffer_pipeline.tables import backjob, hold_freeze
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
from buffer_pipeline_tests.cluster import Cluster, new_cluster
from buffer_pipeline_tests.conftest import NOON, fresh_books
from buffer_pipeline_tests.crasher import BATCH_LIMIT, at_each_boundary, drain
from buffer_pipeline_tests.proxy import cutting_proxy
from buffer_pipeline_tests.test_processes import finish, start, wait_until

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
                        reference=f"earning-{number}",
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
    exit_codes, left = [], set()
    while not exit_codes or exit_codes[-1] != 0:
        at = len(exit_codes) + 1
        with fresh_books(server, due) as url, engine_on(url) as engine:
            exit_codes.append(crasher(url, limit, at))
            wait_until(lambda engine=engine: alone(engine))
            end_of(engine)
            left.add(released(engine))

            drain(engine)

            assert end_of(engine) == undisturbed, f"boundary {at}"

    assert set(exit_codes[:-1]) == {-9}
    assert left == {0, BATCH_LIMIT, HOLDS}


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

            def terminate(number: int, connection: Any, at: int = at) -> None:
                if number == at:
                    pid = connection.info.backend_pid
                    assert admin.execute("SELECT pg_terminate_backend(%s, 30000)", [pid]).fetchone() == (
                        True,
                    )

            with fresh_books(server, due) as url, engine_on(url) as engine:
                with engine_on(url) as doomed:
                    at_each_boundary(doomed, terminate)
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
