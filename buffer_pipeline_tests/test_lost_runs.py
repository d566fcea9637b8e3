"""A run that is gone with whoever ran it: found, failed and made up for, by real processes."""

import os
import signal
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import Connection, Engine

from buffer_pipeline.database import database_clock
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.orchestration import health
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline_tests.builders import end_state, waiting_for_a_lock
from buffer_pipeline_tests.installed import a_dagster
from buffer_pipeline_tests.services import Services, services
from buffer_pipeline_tests.stack import (
    Ui,
    end_of,
    first_line,
    free_port,
    hourly_release_stopped,
    launch_release,
    processes_of,
    serving,
    status_of,
    wait_for,
)
from buffer_pipeline_tests.test_release_runs import BATCH_LIMIT, GATE, hold_many, retry_of


def launch_one_that_waits(ui: Ui, engine: Engine, blocker: Connection, watcher: Connection) -> str:
    """Launch a release, which stops behind its fifth batch until `blocker` rolls back."""
    hold_many(engine, now=database_clock(watcher))
    watcher.rollback()
    blocker.execute(GATE, {"owners": ["worker-11"]})
    run_id = launch_release(ui, batch_limit=BATCH_LIMIT)
    wait_for(lambda: waiting_for_a_lock(watcher), what="a batch that waits")
    return run_id


def let_go(blocker: Connection, watcher: Connection) -> None:
    """Open the gate; the server ends what is left of those who were killed."""
    blocker.rollback()
    wait_for(lambda: not waiting_for_a_lock(watcher), what="the end of what was killed")


def launch_while_the_code_server_is_away(running: Services, instance: dg.DagsterInstance) -> str:
    """Launch a run, kill the code server before the run's turn, and wait until it is queued once more."""
    running.daemon.send_signal(signal.SIGSTOP)
    run_id = launch_release(running.ui, dry_run=True)
    running.kill(running.code)
    running.daemon.send_signal(signal.SIGCONT)

    def queued_again() -> bool:
        enqueued = dg.DagsterEventType.PIPELINE_ENQUEUED
        return len(instance.get_records_for_run(run_id, of_type=enqueued).records) > 1

    wait_for(queued_again, what="its return to the queue")
    return run_id


@pytest.mark.timeout(600)  # Of a machine that has much else to do.
def test_a_run_that_lost_its_code_server_is_made_up_for(
    engine: Engine, database_url: str, server: EmbeddedServer
) -> None:
    """Killed with the code server, which is then started again, a run ends as failed and is retried; it is
    not waited for until max_runtime_seconds. Meanwhile `doctor` names it. A run that was queued goes back
    into the queue until the code server answers.
    """
    with (
        a_dagster(server) as installed,
        services(installed, database_url) as running,
        engine.connect() as blocker,
        engine.connect() as watcher,
        hourly_release_stopped(running.ui),
    ):
        lost = launch_one_that_waits(running.ui, engine, blocker, watcher)
        behind = launch_release(running.ui, batch_limit=BATCH_LIMIT)
        while_it_runs = health.runs(installed.instance)
        running.kill(running.code)
        let_go(blocker, watcher)
        while_nobody_runs_it = health.runs(installed.instance)
        status_meanwhile = status_of(running.ui, lost)

        running.start_code_server()
        status_of_lost = end_of(running.ui, lost)
        retry = wait_for(lambda: retry_of(running.ui, lost), what="the retry")
        at_the_end = [end_of(running.ui, run_id) for run_id in (retry, behind)]
        queued = launch_while_the_code_server_is_away(running, installed.instance)
        running.start_code_server()
        at_the_end.append(end_of(running.ui, queued))

    assert while_it_runs == (True, "1 run under way", "")
    assert while_nobody_runs_it[:2] == (False, f"run {lost} (STARTED): its code server does not answer")
    assert (status_meanwhile, status_of_lost) == ("STARTED", "FAILURE")
    assert at_the_end == ["SUCCESS", "SUCCESS", "SUCCESS"]
    with engine.connect() as connection:
        assert {row[2] for row in end_state(connection)["holds"]} == {"RELEASED"}
        assert reconcile(connection) == []


@pytest.mark.timeout(600)  # Of a machine that has much else to do.
def test_a_run_that_lost_its_dev_is_made_up_for(engine: Engine, database_url: str, home: Path) -> None:
    """The same where all of `dev` was killed, and `dev` is started again."""
    port = free_port()
    with engine.connect() as blocker, engine.connect() as watcher:
        with serving(home, port, sample=False, BUFFER_DATABASE_URL=database_url) as process:
            first_line(process)
            with hourly_release_stopped(port):
                lost = launch_one_that_waits(port, engine, blocker, watcher)
            for pid in (process.pid, *processes_of(home)):
                os.kill(pid, signal.SIGKILL)
        let_go(blocker, watcher)
        with serving(home, port, sample=False, BUFFER_DATABASE_URL=database_url) as process:
            first_line(process)
            status_of_lost = end_of(port, lost)
            retry = wait_for(lambda: retry_of(port, lost), what="the retry")
            status_of_retry = end_of(port, retry)

    assert (status_of_lost, status_of_retry) == ("FAILURE", "SUCCESS")


def test_a_run_in_a_process_of_its_own_is_left_alone(server: EmbeddedServer) -> None:
    """A run that no code server was given, such as one of `dagster job execute`, is nobody's to miss."""
    with a_dagster(server) as installed:
        job = defs.resolve_job_def("release_pending_payments")
        run = installed.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)

        found = health.runs(installed.instance)

    assert run.status is dg.DagsterRunStatus.STARTED
    assert found == (True, "1 run under way", "")
