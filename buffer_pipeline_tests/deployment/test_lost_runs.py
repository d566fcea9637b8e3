"""A run whose process is gone is found, failed and retried, with real processes."""

import os
import signal
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import Engine

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.orchestration import health
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline_tests.support.builders import end_state
from buffer_pipeline_tests.support.installed import a_dagster
from buffer_pipeline_tests.support.release_runs import BATCH_LIMIT, launch_one_that_waits, let_go, retry_of
from buffer_pipeline_tests.support.services import Services, services
from buffer_pipeline_tests.support.stack import (
    end_of,
    free_port,
    hourly_release_stopped,
    launch_release,
    lines_until_ui,
    processes_of,
    serving,
    status_of,
    wait_for,
)


def launch_while_the_code_server_is_away(running: Services, instance: dg.DagsterInstance) -> str:
    """Launch a run, kill the code server before it starts, and wait until the run is queued again."""
    running.daemon.send_signal(signal.SIGSTOP)
    run_id = launch_release(running.ui, dry_run=True)
    running.kill(running.code)
    running.daemon.send_signal(signal.SIGCONT)

    def queued_again() -> bool:
        enqueued = dg.DagsterEventType.PIPELINE_ENQUEUED
        return len(instance.get_records_for_run(run_id, of_type=enqueued).records) > 1

    wait_for(queued_again, what="its return to the queue")
    return run_id


@pytest.mark.timeout(600)  # For a busy machine.
def test_run_that_lost_its_code_server_is_retried(
    engine: Engine, database_url: str, server: EmbeddedServer
) -> None:
    """Killed with the code server, which is started again, a run fails and is retried long before
    max_runtime_seconds. Meanwhile `doctor` names it. A queued run goes back to the queue until the code
    server answers.
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

    assert while_it_runs == (True, "1 run in progress", "")
    assert while_nobody_runs_it[:2] == (False, f"run {lost} (STARTED): its code server does not answer")
    assert (status_meanwhile, status_of_lost) == ("STARTED", "FAILURE")
    assert at_the_end == ["SUCCESS", "SUCCESS", "SUCCESS"]
    with engine.connect() as connection:
        assert {row[2] for row in end_state(connection)["holds"]} == {"RELEASED"}
        assert reconcile(connection) == []


@pytest.mark.timeout(600)  # For a busy machine.
def test_run_that_lost_its_dev_is_retried(engine: Engine, database_url: str, home: Path) -> None:
    """All of `dev` was killed and is started again."""
    port = free_port()
    with engine.connect() as blocker, engine.connect() as watcher:
        with serving(home, port, sample=False, BUFFER_DATABASE_URL=database_url) as process:
            lines_until_ui(process)
            with hourly_release_stopped(port):
                lost = launch_one_that_waits(port, engine, blocker, watcher)
            for pid in (process.pid, *processes_of(home)):
                os.kill(pid, signal.SIGKILL)
        let_go(blocker, watcher)
        with serving(home, port, sample=False, BUFFER_DATABASE_URL=database_url) as process:
            lines_until_ui(process)
            status_of_lost = end_of(port, lost)
            retry = wait_for(lambda: retry_of(port, lost), what="the retry")
            status_of_retry = end_of(port, retry)

    assert (status_of_lost, status_of_retry) == ("FAILURE", "SUCCESS")


def test_run_without_a_code_server_is_not_reported_as_lost(server: EmbeddedServer) -> None:
    """For example a run of `dagster job execute`."""
    with a_dagster(server) as installed:
        job = defs.resolve_job_def("release_pending_payments")
        run = installed.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)

        found = health.runs(installed.instance)

    assert run.status is dg.DagsterRunStatus.STARTED
    assert found == (True, "1 run in progress", "")
