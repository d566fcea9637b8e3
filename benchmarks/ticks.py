"""How long a tick takes to the first credit, and a run with nothing due, compared with an empty job.

    uv run python -m benchmarks.ticks                        # books with 1,000,000 settled holds
    uv run python -m benchmarks.ticks --json

Dagster's code server, webserver and daemon run as `buffer-pipeline dev` starts them, with the repository's
dagster.yaml. The release ticks in even minutes and an empty job in odd ones, with the same code location,
instance, daemon and executor. The time of a tick is the full minute. The time of the first credit is the one
that the books record; for the empty job it is the start of its step. Between the ticks, both jobs are
launched by hand while nothing is due. Figures are medians. They are printed, never asserted.
"""

import argparse
import json
import os
import socket
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import dagster as dg
from sqlalchemy import Engine, text

from benchmarks.figure import Figure
from benchmarks.fill import Shape, fill
from benchmarks.server import BenchmarkServer, benchmark_server
from buffer_pipeline.cli.dev_home import prepare_dagster_home
from buffer_pipeline.cli.dev_processes import dagster_processes, wait_for_ui
from buffer_pipeline.database import database_clock
from buffer_pipeline.intake import add_pending_earnings
from buffer_pipeline.release_run.run import release_all_due

RELEASE: Final = "release_pending_payments"
EMPTY: Final = "empty"
ROOT: Final = Path(__file__).resolve().parents[1]
MODULE: Final = {
    "module_name": "benchmarks.tick_definitions",
    "attribute": "defs",
    "location_name": "buffer_pipeline",
    "working_directory": ".",
}
WARM_SECONDS: Final = 15
"""How long the daemon runs before the first measured tick."""

RUN_SECONDS_MAX: Final = 110
SECONDS_MORE_MAX: Final = 1.0

SENT: Final = """
UPDATE buffer.notification SET dispatched_at = created_at WHERE dispatched_at IS NULL;
INSERT INTO buffer.delivery (
  notification_id, endpoint, owner, state, attempts, created_at, next_attempt_at, first_attempt_at, settled_at
)
SELECT notification_id, 'log', owner, 'DELIVERED', 1, created_at, created_at, created_at, created_at
FROM buffer.notification
"""
"""Marks all notifications so far as delivered."""

LAUNCH: Final = """mutation ($job: String!) {launchRun(executionParams: {
    mode: "default", runConfigData: {}, selector: {
        repositoryLocationName: "buffer_pipeline", repositoryName: "__repository__", jobName: $job}}) {
            __typename ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}}}"""


def measure(server: BenchmarkServer, *, settled: int = 1_000_000, ticks: int = 5) -> list[Figure]:
    """Return the figures for books with `settled` settled holds: medians over `ticks` ticks of each job."""
    with server.books() as database:
        engine = server.engine(database)
        try:
            _settle(server, database, engine, settled=settled)
            with _dagster(server, database) as (instance, port):
                credit, empty_op, runs = _observe(instance, engine, port=port, ticks=ticks)
        finally:
            engine.dispose()
    figures = [_figure("tick to first credit", credit, "an empty job, tick to its op", empty_op)]
    durations: dict[str, Callable[[Any], float]] = {
        "whole run with nothing due, start to end": lambda run: run.end_time - run.start_time,
        "whole run with nothing due, launch to end": lambda run: (
            run.end_time - run.create_timestamp.timestamp()
        ),
    }
    for name, seconds in durations.items():
        values, yardstick = ([seconds(run) for run in runs[job]] for job in (RELEASE, EMPTY))
        figures.append(_figure(name, values, "an empty job's run", yardstick))
    return figures


def _figure(name: str, values: list[float], yardstick: str, yardstick_values: list[float]) -> Figure:
    value, beside = median(values), median(yardstick_values)
    return Figure(
        benchmark="ticks",
        name=name,
        value=value,
        unit="s",
        yardstick=yardstick,
        yardstick_value=beside,
        ratio=value - beside,
        goal=f"at most {SECONDS_MORE_MAX:g} s more",
        met=value - beside <= SECONDS_MORE_MAX,
    )


def _settle(server: BenchmarkServer, database: str, engine: Engine, *, settled: int) -> None:
    """Fill the books with holds that are released and whose notifications are delivered."""
    fill(server, database, Shape(due=settled, wallets=max(1, min(10_000, settled // 10))))
    with engine.begin() as connection:
        now = database_clock(connection)
    release_all_due(engine, due_by=now, source="before the benchmark")
    with engine.begin() as connection:
        for statement in SENT.split(";"):
            connection.execute(text(statement))
    server.admin("VACUUM (ANALYZE)", database=database)
    server.admin("CHECKPOINT")


@contextmanager
def _dagster(server: BenchmarkServer, database: str) -> Iterator[tuple[dg.DagsterInstance, int]]:
    """Run Dagster's processes on the books, with a new instance. Yield the instance and the UI's port."""
    name = f"{database}_dagster"
    server.admin(f"CREATE DATABASE {name} OWNER buffer")
    with ExitStack() as stack:
        stack.callback(server.admin, f"DROP DATABASE {name} WITH (FORCE)")
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-dagster-")))
        dagster_home = prepare_dagster_home(home, root=ROOT)
        settings = {
            "BUFFER_HOME": str(home),
            "BUFFER_DATABASE_URL": server.url(database),
            "BUFFER_DAGSTER_DATABASE_URL": server.url(name).replace("+psycopg:", "+psycopg2:"),
            "DAGSTER_HOME": str(dagster_home),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
        }
        stack.enter_context(_environment(settings))
        port = _free_port()
        processes = stack.enter_context(dagster_processes(dict(os.environ)))
        processes.start_code_server(MODULE, root=ROOT)
        processes.start_webserver(port=port)
        wait_for_ui(processes, threading.Event(), ui=f"http://127.0.0.1:{port}", say=print)
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(dagster_home)))
        processes.start_daemon()
        yield instance, port


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Set only these settings of the buffer and of Dagster, for this process and those that it starts."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("BUFFER_", "DAGSTER_"))]:
        del os.environ[name]
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _observe(
    instance: dg.DagsterInstance, engine: Engine, *, port: int, ticks: int
) -> tuple[list[float], list[float], dict[str, list[Any]]]:
    """Return the seconds from tick to first credit, and to the empty op, and the runs launched by hand."""
    credit: list[float] = []
    empty_op: list[float] = []
    by_hand: dict[str, list[Any]] = {RELEASE: [], EMPTY: []}
    time.sleep(WARM_SECONDS)
    while len(empty_op) < ticks:
        is_release = len(credit) <= len(empty_op)
        minute = _next_minute(even=is_release)
        if is_release:
            _make_one_due(engine, minute)
        time.sleep(max(0.0, minute.timestamp() - time.time()))
        run = _run_of_tick(instance, RELEASE if is_release else EMPTY, minute)
        if is_release:
            credit.append(_first_credit(engine, run.dagster_run.run_id) - minute.timestamp())
        else:
            (step,) = instance.get_run_step_stats(run.dagster_run.run_id)
            assert step.start_time is not None, "it has begun"
            empty_op.append(step.start_time - minute.timestamp())
        for job, runs in by_hand.items():
            runs.append(_ended(instance, _launch(port, job)))
        _say(f"{minute:%H:%M} {run.dagster_run.job_name}: {(credit if is_release else empty_op)[-1]:.2f} s")
    return credit, empty_op, by_hand


def _next_minute(*, even: bool) -> datetime:
    """Return the next full minute that is even, or odd, and at least a few seconds away."""
    minute = (datetime.now(UTC) + timedelta(seconds=65)).replace(second=0, microsecond=0)
    return minute if (minute.minute % 2 == 0) == even else minute + timedelta(minutes=1)


def _make_one_due(engine: Engine, minute: datetime) -> None:
    """Add a hold that has been due for a day, and whose notification is dispatched."""
    with engine.begin() as connection:
        now = database_clock(connection)
        add_pending_earnings(
            connection,
            reference=f"tick-{minute.isoformat()}",
            job="job-of-the-tick",
            payee="worker-1",
            payer="client-1",
            amount="1000.00",
            currency="PHP",
            held_at=now - timedelta(days=8),
            now=now,
        )
        # So that no run sends it during the measurement.
        connection.execute(
            text("UPDATE buffer.notification SET dispatched_at = created_at WHERE dispatched_at IS NULL")
        )


def _first_credit(engine: Engine, run_id: str) -> float:
    """Return the time at which the run made its first credit, according to the books."""
    with engine.begin() as connection:
        moment: datetime = connection.execute(
            text("SELECT min(recorded_at) FROM buffer.batch WHERE source = :source"),
            {"source": f"dagster run {run_id}"},
        ).scalar_one()
    return moment.timestamp()


def _run_of_tick(instance: dg.DagsterInstance, job: str, minute: datetime) -> Any:
    """Wait until the run that the schedule launched at this minute has ended, and return its record."""
    deadline = time.monotonic() + RUN_SECONDS_MAX
    while time.monotonic() < deadline:
        for record in instance.get_run_records(dg.RunsFilter(job_name=job), limit=5):
            at = record.dagster_run.tags.get(".dagster/scheduled_execution_time")
            if at is not None and datetime.fromisoformat(at) == minute:
                return _ended(instance, record.dagster_run.run_id)
        time.sleep(0.5)
    raise TimeoutError(f"{job}: no run of the tick at {minute:%H:%M}")


def _launch(port: int, job: str) -> str:
    """Launch a job as the Launchpad does, and return the id of its run."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        data=json.dumps({"query": LAUNCH, "variables": {"job": job}}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        launched = json.load(answer)["data"]["launchRun"]
    return str(launched["run"]["runId"])


def _ended(instance: dg.DagsterInstance, run_id: str) -> Any:
    """Wait until the run has ended, and return its record."""
    deadline = time.monotonic() + RUN_SECONDS_MAX
    while time.monotonic() < deadline:
        record = instance.get_run_record_by_id(run_id)
        if record is not None and record.dagster_run.is_finished and record.end_time is not None:
            assert record.dagster_run.is_success, f"run {run_id} of {record.dagster_run.job_name} failed"
            return record
        time.sleep(0.5)
    raise TimeoutError(f"run {run_id}: has not ended within {RUN_SECONDS_MAX} seconds")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--settled", type=int, default=1_000_000)
    parser.add_argument("--ticks", type=int, default=5, help="of each job; a pair takes two minutes")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with benchmark_server() as server:
        figures = measure(server, settled=arguments.settled, ticks=arguments.ticks)
    if arguments.json:
        print(json.dumps([asdict(figure) for figure in figures], indent=2))
    else:
        for figure in figures:
            print(figure.line())


if __name__ == "__main__":
    main()
