"""The processes of `dev`: Dagster's code server, webserver and daemon."""

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import yaml

from buffer_pipeline.cli.dev_ui import HOST, definitions_are_loaded, webserver_answers
from buffer_pipeline.errors import PaymentBufferError
from buffer_pipeline.monitoring.alerts import TERMINAL_VARIABLE

READY_SECONDS_MAX: Final = 120
"""The limit for the start of the UI. On a cold machine Python first compiles Dagster's modules."""

STILL_WAITING_SECONDS: Final = 15
"""How often a line says that the start is still going on."""

DAGSTER_STOP_SECONDS_MAX: Final = 20
"""How long Dagster may take to stop by itself before its process groups are killed."""

PROCESS_POLL_SECONDS: Final = 0.1


class DagsterProcesses:
    """A code server, which the other two share, the webserver, and the daemon.

    `dagster dev` runs the same three, each behind a proxy and one after the other, and takes three times as
    long until the UI answers. All of them write to one log file.
    """

    def __init__(self, environment: dict[str, str], *, scratch: Path) -> None:
        self.home = Path(environment["DAGSTER_HOME"])
        self.log_path = self.home / "dagster.log"
        self._alerts_path = scratch / "alerts"
        self._alerts_shown = 0
        self._environment = {**environment, TERMINAL_VARIABLE: str(self._alerts_path)}
        self._scratch = scratch
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.log_path.write_bytes(b"")

    def start_code_server(self, module: dict[str, str], *, root: Path) -> None:
        """Load the definitions that workspace.yaml names, and serve them on a Unix socket."""
        # The socket is in a folder of its own in /tmp, because its path may have at most 107 bytes.
        code_socket = self._scratch / "code.sock"
        self._start(
            "code server",
            ["dagster", "api", "grpc"],
            ["--module-name", module["module_name"], "--attribute", module["attribute"]],
            ["--working-directory", str(root / module["working_directory"]), "--socket", str(code_socket)],
        )
        server = {"socket": str(code_socket), "location_name": module["location_name"]}
        self._workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))

    def start_webserver(self, *, port: int) -> None:
        """Start the UI."""
        self._start(
            "webserver",
            ["dagster_webserver", "--workspace", str(self._workspace)],
            ["--host", HOST, "--port", str(port), "--dagster-log-level", "warning"],
        )

    def start_daemon(self) -> None:
        """Start the daemon, which evaluates schedules and sensors and launches runs."""
        # The module of the program `dagster-daemon`, whose own path is not known here.
        self._start("daemon", ["dagster._daemon", "run", "--workspace", str(self._workspace)])

    @property
    def _workspace(self) -> Path:
        return self._scratch / "workspace.yaml"

    def _start(self, name: str, *arguments: list[str]) -> None:
        with self.log_path.open("ab") as log:
            self._processes[name] = subprocess.Popen(  # noqa: S603 - our own arguments
                [sys.executable, "-m", *itertools.chain.from_iterable(arguments)],
                cwd=self.home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # In a session of its own, so that Ctrl-C in a terminal reaches only this process, which then
                # stops the others in order.
                start_new_session=True,
            )

    def require_running(self) -> None:
        """Check that every started process runs.

        Raises:
            PaymentBufferError: one of them has ended by itself.
        """
        for name, process in self._processes.items():
            code = process.poll()
            if code is not None:
                raise PaymentBufferError(
                    f"Dagster: its {name} ended by itself with exit code {code}; {self.log_path} says why"
                )

    def new_alerts(self) -> list[str]:
        """Return the alerts of the sensors since the last call, as one text.

        Without BUFFER_ALERT_URLS the sensors write them to a file, and to the log of the sensor's tick.
        """
        if not self._alerts_path.exists():
            return []
        with self._alerts_path.open("rb") as alerts:
            alerts.seek(self._alerts_shown)
            new = alerts.read()
        self._alerts_shown += len(new)
        return [new.decode("utf-8", errors="replace").rstrip("\n")] if new else []

    def stop(self) -> None:
        """Interrupt all processes, and kill those that still run after the grace period."""
        for process in self._processes.values():
            # The whole group: a run in progress is a child of the code server. It reports that it was
            # interrupted, so that it does not block the next run.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
        deadline = time.monotonic() + DAGSTER_STOP_SECONDS_MAX
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def dagster_processes(environment: dict[str, str]) -> Iterator[DagsterProcesses]:
    """Yield the processes, none of them started yet, and stop them at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="buffer-pipeline-") as scratch:
        processes = DagsterProcesses(environment, scratch=Path(scratch))
        try:
            yield processes
        finally:
            processes.stop()


def wait_for_ui(
    processes: DagsterProcesses, stop: threading.Event, *, ui: str, say: Callable[[str], None]
) -> None:
    """Wait until the UI answers and has loaded the definitions, or until `stop` is set.

    Raises:
        PaymentBufferError: a process has ended by itself, or the UI was not ready in time.
    """
    _wait(processes, stop, ui, webserver_answers, what="for the webserver to answer", say=say)
    _wait(processes, stop, ui, definitions_are_loaded, what="for the definitions to load", say=say)


def _wait(
    processes: DagsterProcesses,
    stop: threading.Event,
    ui: str,
    is_ready: Callable[[str], bool],
    *,
    what: str,
    say: Callable[[str], None],
) -> None:
    began = time.monotonic()
    next_line = STILL_WAITING_SECONDS
    while not stop.wait(PROCESS_POLL_SECONDS):
        processes.require_running()
        if is_ready(ui):
            return
        seconds = time.monotonic() - began
        if seconds > READY_SECONDS_MAX:
            raise PaymentBufferError(
                f"Dagster: waited {READY_SECONDS_MAX} seconds {what}; {processes.log_path} says why"
            )
        if seconds >= next_line:
            say(f"Still waiting {what}, after {next_line} seconds.")
            next_line += STILL_WAITING_SECONDS
