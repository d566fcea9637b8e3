"""How Dagster finds a run that nobody runs any more: dagster.yaml names this launcher."""

import json
import socket
from typing import Final

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import GetCurrentRunsResult
from dagster._serdes import deserialize_value

NO_ANSWER: Final = "its code server does not answer"


class Launcher(DefaultRunLauncher):
    """Dagster's own launcher, which can also say whether a run is still run.

    A run is a child process of the code server that it was given to, and is gone with it: a code server
    that was killed and started again knows nothing of it. Dagster's daemon asks this launcher about each
    run that has started, every `run_monitoring.poll_interval_seconds`, and reports one that is gone as
    failed, so that `run_retries` makes up for it. Dagster's own launcher cannot be asked: such a run stays
    STARTED, and the next release queued, for `run_monitoring.max_runtime_seconds`.

    The server must be back before the run is failed, because Dagster gives a retry up at once where no
    code server answers. It must be the only one at its address: of two behind one name, either would deny
    the other's runs.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Let Dagster's daemon ask."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Ask the code server that has the run. One that does not answer may still have it."""
        has = _has(run)
        if has is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, msg=NO_ANSWER)
        if not has:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, msg="its code server does not know it")
        return CheckRunHealthResult(WorkerStatus.RUNNING)


def _has(run: dg.DagsterRun) -> bool | None:
    """Return whether the run's code server has it; None if nobody can say."""
    given_to = run.tags.get(GRPC_INFO_TAG)
    if given_to is None:
        # No code server was given it: `dagster job execute` runs in its own process.
        return True
    address = json.loads(given_to)
    try:
        if "socket" in address and not _is_served(address["socket"]):
            return False
        answer = DagsterGrpcClient(**address).get_current_runs()
    except (PermissionError, DagsterUserCodeUnreachableError):
        return None
    return run.run_id in deserialize_value(answer, GetCurrentRunsResult).current_runs


def _is_served(path: str) -> bool:
    """Return whether somebody listens at a Unix socket, which is on the daemon's own machine.

    `dev` makes a new one at each start, so nobody comes back to the one of before.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
