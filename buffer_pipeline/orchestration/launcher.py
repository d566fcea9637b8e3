"""The run launcher that dagster.yaml names. It finds runs that no process executes any more."""

import json
import socket
from typing import Final

import dagster as dg

from buffer_pipeline.orchestration.dagster_internals import (
    GRPC_INFO_TAG,
    CheckRunHealthResult,
    DagsterGrpcClient,
    DagsterUserCodeUnreachableError,
    GetCurrentRunsResult,
    WorkerStatus,
)

NO_ANSWER: Final = "its code server does not answer"


class Launcher(dg.DefaultRunLauncher):
    """Dagster's default launcher with a health check of runs.

    A run is a child process of its code server, and ends with it: a code server that was killed and started
    again does not know the run. Every `run_monitoring.poll_interval_seconds` Dagster's daemon asks this
    launcher about each started run, and reports a lost run as failed, so that `run_retries` starts it again.
    The default launcher has no health check: there, a lost run stays STARTED, and the next release stays
    queued, for `run_monitoring.max_runtime_seconds`.

    A run is not reported as lost until its code server answers again, because Dagster gives up a retry
    immediately if no code server answers. There must be only one code server at an address: each of two would
    not know the runs of the other.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Return True: Dagster's daemon may ask."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Ask the code server of the run. A code server that does not answer may still have the run."""
        has = _has(run)
        if has is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, msg=NO_ANSWER)
        if not has:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, msg="its code server does not know it")
        return CheckRunHealthResult(WorkerStatus.RUNNING)


def _has(run: dg.DagsterRun) -> bool | None:
    """Return whether the run's code server has it; None if the code server does not answer."""
    given_to = run.tags.get(GRPC_INFO_TAG)
    if given_to is None:
        # The run has no code server: `dagster job execute` runs it in its own process.
        return True
    address = json.loads(given_to)
    try:
        if "socket" in address and not _is_served(address["socket"]):
            return False
        answer = DagsterGrpcClient(**address).get_current_runs()
    except (PermissionError, DagsterUserCodeUnreachableError):
        return None
    return run.run_id in dg.deserialize_value(answer, GetCurrentRunsResult).current_runs


def _is_served(path: str) -> bool:
    """Return whether a process listens on a Unix socket, which is on the machine of the daemon.

    `dev` creates a new socket at each start, so an old one is never served again.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
