"""Release runs on the real stack: one at a time, and with a killed process."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Engine, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import database_clock, make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline_tests.support.builders import end_state, waiting_for_a_lock
from buffer_pipeline_tests.support.release_runs import BATCH_LIMIT, GATE, hold_many, retry_of
from buffer_pipeline_tests.support.stack import (
    ask,
    end_of,
    free_port,
    hourly_release_stopped,
    launch_release,
    lines_until_ui,
    serving,
    status_of,
    wait_for,
)

RUN: Final = """query ($run: ID!) {runOrError(runId: $run) {... on Run {
    status parentRunId rootRunId stepKeysToExecute stepStats {stepKey status}
    eventConnection {events {... on MessageEvent {message eventType}}}}}}"""


@pytest.fixture
def other_engine(server: EmbeddedServer) -> Iterator[Engine]:
    """An engine on a second set of fresh books."""
    name = f"other_{os.urandom(6).hex()}"
    admin = make_engine(server.url("postgres", user="postgres"))
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE buffer OWNER buffer"))
    admin.dispose()
    engine = make_engine(server.url(name))
    yield engine
    engine.dispose()


def process_of(port: int, run_id: str) -> int | None:
    """Return the id of the run's process from the run's log."""
    started = "Started process for run (pid: "
    for event in ask(port, RUN, run=run_id)["runOrError"]["eventConnection"]["events"]:
        message = event.get("message") or ""
        if message.startswith(started):
            return int(message.removeprefix(started).removesuffix(")."))
    return None


def test_killed_run_is_retried_with_the_same_result(
    engine: Engine, database_url: str, other_engine: Engine, home: Path
) -> None:
    """SIGKILL after five batches, before the sixth commits. Dagster retries the job from its first op, and
    the result is the same.
    """
    port = free_port()
    with other_engine.connect() as connection:
        now = database_clock(connection)
    hold_many(other_engine, now=now)
    release_all_due(other_engine, due_by=now, source="undisturbed", batch_limit=BATCH_LIMIT)
    with (
        serving(home, port, sample=False, BUFFER_DATABASE_URL=database_url) as process,
        engine.connect() as blocker,
        engine.connect() as watcher,
    ):
        lines_until_ui(process)
        with hourly_release_stopped(port):
            hold_many(engine, now=now)
            blocker.execute(GATE, {"owners": ["worker-11"]})

            killed = launch_release(port, batch_limit=BATCH_LIMIT)
            wait_for(lambda: waiting_for_a_lock(watcher), what="a batch that waits")
            pid = wait_for(lambda: process_of(port, killed), what="the run's process")
            os.kill(pid, signal.SIGKILL)
            blocker.rollback()
            wait_for(lambda: not waiting_for_a_lock(watcher), what="the end of what was killed")
            released_by_killed = watcher.execute(
                text("SELECT count(*) FROM buffer.hold_status WHERE state = 'RELEASED'")
            ).scalar_one()
            status_of_killed = end_of(port, killed)
            retry = wait_for(lambda: retry_of(port, killed), what="the retry")
            status_of_retry = end_of(port, retry)
        first, second = (ask(port, RUN, run=run_id)["runOrError"] for run_id in (killed, retry))

    assert released_by_killed == 5 * BATCH_LIMIT
    assert (status_of_killed, status_of_retry) == ("FAILURE", "SUCCESS")
    assert (second["parentRunId"], second["rootRunId"]) == (killed, killed)
    steps = {step["stepKey"]: step["status"] for step in second["stepStats"]}
    assert sorted(steps) == sorted(first["stepKeysToExecute"])
    assert set(steps.values()) == {"SUCCESS"}
    assert "released_transactions.select_matured_transactions" in steps
    with engine.connect() as connection, other_engine.connect() as other_connection:
        state = end_state(connection)
        assert state == end_state(other_connection)
        assert {row[2] for row in state["holds"]} == {"RELEASED"}
        assert reconcile(connection) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_a_run_that_was_terminated_leaves_nothing_half_done(
    engine: Engine, database_url: str, home: Path, workers: int
) -> None:
    """Terminated while its batches wait for a lock, a run ends without it. Committed batches remain, those in
    progress are rolled back, and the next run releases the rest.
    """
    port = free_port()
    with (
        serving(home, port, sample=False, BUFFER_DATABASE_URL=database_url) as process,
        engine.connect() as blocker,
        engine.connect() as watcher,
    ):
        lines_until_ui(process)
        with hourly_release_stopped(port):
            hold_many(engine, now=database_clock(watcher))
            watcher.rollback()
            # One in each third of the wallets, so that each worker reaches one after its first batch.
            blocker.execute(GATE, {"owners": ["worker-05", "worker-12", "worker-18"]})
            terminated = launch_release(port, batch_limit=BATCH_LIMIT, workers=workers)
            wait_for(lambda: waiting_for_a_lock(watcher) == workers, what="batches that wait")
            released = watcher.execute(
                text("SELECT count(*) FROM buffer.hold_status WHERE state = 'RELEASED'")
            ).scalar_one()
            watcher.rollback()

            terminate = """mutation ($run: String!) {terminateRun(runId: $run) {__typename}}"""
            answer = ask(port, terminate, run=terminated)["terminateRun"]["__typename"]
            status = end_of(port, terminated)
            wait_for(lambda: not waiting_for_a_lock(watcher), what="the end of what waited")
            state = end_state(watcher)
            violations = list(reconcile(watcher))
            watcher.rollback()
            blocker.rollback()
            next_status = end_of(port, launch_release(port, workers=workers))

    assert (answer, status, next_status) == ("TerminateRunSuccess", "CANCELED", "SUCCESS")
    assert released >= BATCH_LIMIT
    assert sum(row[2] == "RELEASED" for row in state["holds"]) == released
    assert violations == []
    with engine.connect() as connection:
        assert {row[2] for row in end_state(connection)["holds"]} == {"RELEASED"}
        assert reconcile(connection) == []


def test_one_release_runs_at_a_time(engine: Engine, database_url: str, home: Path) -> None:
    """While one waits for a wallet, the next two stay queued: the job's because of its tag, and a Materialize
    without a tag because of its op's pool.
    """
    port = free_port()
    with (
        serving(home, port, sample=False, BUFFER_DATABASE_URL=database_url) as process,
        engine.connect() as blocker,
        engine.connect() as watcher,
    ):
        lines_until_ui(process)
        with hourly_release_stopped(port):
            hold_many(engine, now=database_clock(watcher))
            watcher.rollback()
            blocker.execute(GATE, {"owners": ["worker-11"]})
            first = launch_release(port)
            wait_for(lambda: waiting_for_a_lock(watcher), what="a batch that waits")

            others = [launch_release(port), materialize(port, "released_transactions")]
            # A run without a limit overtakes them, so the queue was processed and kept them.
            free = materialize(port, "release_notifications")
            status_of_free = end_of(port, free)
            meanwhile = [status_of(port, run_id) for run_id in (first, *others)]
            blocker.rollback()
            at_the_end = [end_of(port, run_id) for run_id in (first, *others)]

    assert status_of_free == "SUCCESS"
    assert meanwhile == ["STARTED", "QUEUED", "QUEUED"]
    assert at_the_end == ["SUCCESS"] * 3
    with engine.connect() as connection:
        assert reconcile(connection) == []


def materialize(port: int, asset: str) -> str:
    """Launch one asset as its Materialize button does, and return the run's id."""
    launch = """mutation ($asset: [AssetKeyInput!]) {launchRun(executionParams: {
        mode: "default", runConfigData: {}, selector: {
            repositoryLocationName: "buffer_pipeline", repositoryName: "__repository__",
            jobName: "__ASSET_JOB", assetSelection: $asset}}) {
                __typename ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}}}"""
    launched = ask(port, launch, asset=[{"path": [asset]}])["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id: str = launched["run"]["runId"]
    return run_id
