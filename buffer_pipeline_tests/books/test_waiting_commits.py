"""Commands whose commits wait for a synchronous standby that does not answer: each can be stopped."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text

from buffer_pipeline.database import make_engine
from buffer_pipeline.release_run.batch_size import FIRST_BATCH
from buffer_pipeline_tests.support import runs
from buffer_pipeline_tests.support.builders import PAYEE, place_hold
from buffer_pipeline_tests.support.cluster import (
    Cluster,
    commits_that_wait,
    new_cluster,
    waiting_for_a_standby,
)
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.processes import (
    WAIT_SECONDS_MAX,
    figures,
    finish,
    hold_many,
    line_with,
    start,
    wait_until,
)
from buffer_pipeline_tests.support.stack import (
    ask,
    end_of,
    free_port,
    hourly_release_stopped,
    launch_release,
    lines_until_ui,
    serving,
)


@pytest.fixture(scope="module")
def cluster(programs_and_user: tuple[Path, str | None]) -> Iterator[Cluster]:
    """A server for this file."""
    programs, user = programs_and_user
    with new_cluster(programs, user=user) as cluster:
        yield cluster


@pytest.fixture
def books(cluster: Cluster) -> Iterator[Engine]:
    """Fresh books, through an engine whose own commits do not wait."""
    with fresh_books(cluster.server) as url:
        engine = make_engine(url)

        @event.listens_for(engine, "begin")
        def wait_for_nobody(connection: object) -> None:
            connection.exec_driver_sql("SET LOCAL synchronous_commit = local")  # type: ignore[attr-defined]

        yield engine
        engine.dispose()


def url_of(books: Engine) -> str:
    """Return the books' URL."""
    return books.url.render_as_string(hide_password=False)


def waiting_commits(books: Engine) -> int:
    """Return the number of commits that wait for the standby."""
    with books.connect() as connection:
        return waiting_for_a_standby(connection)


@pytest.mark.parametrize(
    ("first", "second", "code", "workers"),
    [
        (signal.SIGTERM, signal.SIGTERM, 143, 1),
        (signal.SIGTERM, signal.SIGTERM, 143, 2),
        (signal.SIGTERM, None, 143, 1),
        (signal.SIGTERM, signal.SIGINT, 130, 2),
        (signal.SIGINT, signal.SIGTERM, 143, 1),
    ],
)
def test_release_whose_commit_waits_can_be_stopped(
    cluster: Cluster,
    books: Engine,
    first: signal.Signals,
    second: signal.Signals | None,
    code: int,
    workers: int,
) -> None:
    """A second signal, or the end of the grace time after SIGTERM, cancels the wait. The command says that
    the last batch may be committed or not, nothing is half done, and the next release releases the rest.
    """
    hold_many(books, holds=6_000, wallets=50)
    with commits_that_wait(cluster):
        process = start("release", "--json", "--workers", str(workers), BUFFER_DATABASE_URL=url_of(books))
        wait_until(lambda: waiting_commits(books) == workers)
        process.send_signal(first)
        line_with(process, "finishing the current batch")
        if second is not None:
            process.send_signal(second)
        out, err = process.communicate(timeout=WAIT_SECONDS_MAX)
        waiting_at_the_end = waiting_commits(books)
    error = json.loads(out)["error"]
    released, lines, balances, violations = figures(books)
    rest = json.loads(finish(start("release", "--json", BUFFER_DATABASE_URL=url_of(books))))

    assert process.returncode == code
    assert (error["type"], waiting_at_the_end) == ("Stopped", 0)
    assert "the current batch may be committed or not" in err
    assert error["message"] in err
    # PostgreSQL commits on the primary although the wait was cancelled.
    assert (released, lines, balances) == (workers * FIRST_BATCH,) * 2 + (workers * FIRST_BATCH * 1000,)
    assert violations == []
    assert rest["holds_released"] == 6_000 - released


def notify(books: Engine, *owners: str) -> None:
    """Write a notification for each owner in turn."""
    with books.begin() as connection:
        for owner in owners:
            place_hold(connection, payee=owner)


def delivered(books: Engine) -> int:
    """Return the number of finished deliveries."""
    with books.connect() as connection:
        return runs.delivered(connection)[1]


@pytest.mark.parametrize(
    ("how", "channel"),
    [("--seconds", "log"), ("--seconds", "inbox"), ("SIGTERM", "log"), ("SIGINT", "inbox")],
)
def test_drain_whose_commits_wait_stops_after_one_signal(
    cluster: Cluster, books: Engine, how: str, channel: str
) -> None:
    """`--seconds` limits it, and one signal stops it. It prints what it sent, and the next drain sends the
    rest.
    """
    notify(books, *(f"worker-{number}" for number in range(5)))
    settings = {
        "BUFFER_DATABASE_URL": url_of(books),
        "BUFFER_ENDPOINTS": json.dumps([{"name": "here", "channel": channel}]),
    }
    with commits_that_wait(cluster):
        began = time.monotonic()
        limit = ["--seconds", "1"] if how == "--seconds" else []
        process = start("notifications", "drain", "--json", *limit, **settings)
        wait_until(lambda: waiting_commits(books) > 0)
        if how != "--seconds":
            process.send_signal(signal.Signals[how])
            line_with(process, "finishing the deliveries in progress")
        out, err = process.communicate(timeout=WAIT_SECONDS_MAX)
        seconds, waiting_at_the_end = time.monotonic() - began, waiting_commits(books)
    drained = json.loads(out)
    rest = json.loads(finish(start("notifications", "drain", "--json", **settings)))

    assert (process.returncode, waiting_at_the_end) == (0, 0), err
    assert seconds < WAIT_SECONDS_MAX / 2
    assert "Traceback" not in err
    assert drained["sent"] + rest["sent"] >= 5
    assert rest["waiting"] == 0
    assert delivered(books) == 5


def test_a_second_sigterm_ends_a_drain_whose_commits_wait(cluster: Cluster, books: Engine) -> None:
    """It ends without a result and says that the last deliveries may be committed or not."""
    notify(books, PAYEE)
    with commits_that_wait(cluster):
        process = start("notifications", "drain", "--json", BUFFER_DATABASE_URL=url_of(books))
        wait_until(lambda: waiting_commits(books) > 0)
        process.send_signal(signal.SIGTERM)
        line_with(process, "finishing the deliveries in progress")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=WAIT_SECONDS_MAX)
        waiting_at_the_end = waiting_commits(books)

    assert process.returncode == 143
    assert json.loads(out)["error"]["type"] == "Stopped"
    assert waiting_at_the_end == 0


def test_terminated_dagster_run_whose_commit_waits_ends(cluster: Cluster, books: Engine, home: Path) -> None:
    """Terminating a run cancels the wait. Its batch is committed on the primary, and the next run releases
    the rest.
    """
    hold_many(books, holds=4_000, wallets=50)
    storage = f"{books.url.database}_dagster"
    with books.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {storage}"))
        connection.execute(text(f"ALTER DATABASE {storage} SET synchronous_commit = local"))
    port = free_port()
    with serving(home, port, sample=False, BUFFER_DATABASE_URL=url_of(books)) as process:
        lines_until_ui(process)
        with hourly_release_stopped(port):
            with commits_that_wait(cluster):
                terminated = launch_release(port)
                wait_until(lambda: batches_that_wait(books) == 1)
                terminate = """mutation ($run: String!) {terminateRun(runId: $run) {__typename}}"""
                answer = ask(port, terminate, run=terminated)["terminateRun"]["__typename"]
                status = end_of(port, terminated)
                waiting_at_the_end = batches_that_wait(books)
                released, *_, violations = figures(books)
            next_status = end_of(port, launch_release(port))

    assert (answer, status, next_status) == ("TerminateRunSuccess", "CANCELED", "SUCCESS")
    assert (released, waiting_at_the_end, violations) == (FIRST_BATCH, 0, [])
    assert figures(books) == (4_000, 4_000, 4_000 * 1000, [])


def batches_that_wait(books: Engine) -> int:
    """Return the number of waiting commits of releases; other commits of Dagster may wait too."""
    with books.connect() as connection:
        waiting: int = connection.execute(
            text(
                "SELECT count(DISTINCT pid) FROM pg_stat_activity JOIN pg_locks USING (pid)"
                " WHERE wait_event = 'SyncRep' AND relation = CAST('buffer.batch' AS regclass)"
            )
        ).scalar_one()
        return waiting
