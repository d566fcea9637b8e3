"""The code server, webserver and daemon of docker-compose.yml, as processes."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import yaml

from buffer_pipeline.embedded import DAGSTER
from buffer_pipeline_tests.support.installed import Installed
from buffer_pipeline_tests.support.stack import free_port, status_of, wait_for

MODULE: Final = ("--module-name", "buffer_pipeline.orchestration.definitions", "--attribute", "defs")


class Services:
    """A code server, a webserver and a daemon as in docker-compose.yml, each in its own process group."""

    def __init__(self, installed: Installed, database_url: str) -> None:
        self.ui, self._port = free_port(), free_port()
        self.code_address = f"127.0.0.1:{self._port}"
        self._home = installed.home
        self.environment = {
            **os.environ,
            "DAGSTER_HOME": str(installed.home),
            "BUFFER_DATABASE_URL": database_url.replace("//buffer@", f"//{DAGSTER}@"),
            "BUFFER_DAGSTER_DATABASE_URL": installed.storage_url,
        }
        self._workspace = installed.home / "workspace.yaml"
        code = {"host": "127.0.0.1", "port": self._port, "location_name": "buffer_pipeline"}
        self._workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": code}]}))
        self.running: list[subprocess.Popen[bytes]] = []

    def start_code_server(self) -> None:
        """Start the code server, which starts the processes of runs."""
        self.code = self._start(
            "dagster", "api", "grpc", "--host", "127.0.0.1", "--port", str(self._port), *MODULE
        )

    def code_server_listens(self) -> bool:
        """Return True if the code server accepts connections."""
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return False
        return True

    def start_others(self) -> None:
        """Start the webserver and the daemon."""
        workspace = ("--workspace", str(self._workspace))
        self._start("dagster_webserver", "--host", "127.0.0.1", "--port", str(self.ui), *workspace)
        self.daemon = self._start("dagster._daemon", "run", *workspace)
        wait_for(self._answers, what="the webserver")

    def _answers(self) -> bool:
        try:
            status_of(self.ui, "none")
        except OSError:
            return False
        except KeyError:
            return True
        raise AssertionError("there is no such run")

    def _start(self, *module: str) -> subprocess.Popen[bytes]:
        with (self._home / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=self._home,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.running.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill it and its children, as `docker kill` does."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.running.remove(process)


@contextmanager
def services(installed: Installed, database_url: str) -> Iterator[Services]:
    """Yield the running services. Kill what is left of them at the end."""
    running = Services(installed, database_url)
    try:
        running.start_code_server()
        running.start_others()
        yield running
    finally:
        for process in list(running.running):
            running.kill(process)
