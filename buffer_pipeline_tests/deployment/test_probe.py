"""The probes of health checks, on a real code server and a real daemon: correct and cheap."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest
from dagster._daemon.types import DaemonHeartbeat
from sqlalchemy.engine import make_url

from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline_start.probe import OLDEST_BEAT_SECONDS_MAX
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.installed import Installed, a_dagster
from buffer_pipeline_tests.support.services import Services, services
from buffer_pipeline_tests.support.stack import free_port, wait_for

HEAVY: Final = ("dagster", "sqlalchemy", "pandas", "buffer_pipeline")
PROBE: Final = ("-m", "buffer_pipeline_start.probe")


@dataclass(frozen=True)
class Probed:
    """The result of a probe or health check, and its cost."""

    code: int
    output: str
    cpu_seconds: float


@dataclass(frozen=True)
class Running:
    """The services and their instance."""

    installed: Installed
    services: Services

    def probe(self, *command: str, **environment: str) -> Probed:
        """Run a Python command as a service's health check does."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = subprocess.run(
            [sys.executable, *command],
            env={**self.services.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Probed(ended.returncode, ended.stderr, seconds)


@pytest.fixture(scope="module")
def running(server: EmbeddedServer) -> Iterator[Running]:
    """A running code server and daemon."""
    with (
        a_dagster(server) as installed,
        fresh_books(server) as database_url,
        services(installed, database_url) as started,
    ):
        required = set(installed.instance.get_required_daemon_types())
        wait_for(lambda: required <= set(installed.instance.get_daemon_heartbeats()), what="all heartbeats")
        # The daemon beats before the code server has loaded.
        wait_for(started.code_server_listens, what="the code server")
        yield Running(installed, started)


def test_probes_pass_on_running_services(running: Running) -> None:
    """Both print nothing and exit with 0."""
    code = running.probe(*PROBE, "code", "--address", running.services.code_address)
    daemon = running.probe(*PROBE, "daemon")

    assert (code.code, code.output) == (0, "")
    assert (daemon.code, daemon.output) == (0, "")


@pytest.mark.parametrize("part", ["code", "daemon"])
def test_probes_import_no_large_packages(running: Running, part: str) -> None:
    """Neither Dagster, SQLAlchemy, pandas nor this package, whose imports took most of the CPU time."""
    address = ("--address", running.services.code_address) if part == "code" else ()

    probed = running.probe("-X", "importtime", *PROBE, part, *address)

    loaded = {line.rpartition("|")[2].strip() for line in probed.output.splitlines()}
    assert probed.code == 0
    assert loaded & {"grpc", "psycopg2"} == {"grpc" if part == "code" else "psycopg2"}
    assert [name for name in loaded if name.partition(".")[0] in HEAVY] == []


def test_probes_take_less_than_a_third_of_dagsters_checks(running: Running) -> None:
    """CPU time, measured in one run."""
    host, _, port = running.services.code_address.partition(":")

    code = running.probe(*PROBE, "code", "--address", running.services.code_address)
    own_of_code = running.probe("-m", "dagster", "api", "grpc-health-check", "--host", host, "--port", port)
    daemon = running.probe(*PROBE, "daemon")
    own_of_daemon = running.probe("-m", "dagster._daemon", "liveness-check")

    figures = [each.cpu_seconds for each in (code, own_of_code, daemon, own_of_daemon)]
    print(
        "processor seconds: code {:.2f}, Dagster's {:.2f}; daemon {:.2f}, Dagster's {:.2f}".format(*figures)
    )
    assert [each.code for each in (code, own_of_code, daemon, own_of_daemon)] == [0, 0, 0, 0]
    assert 3 * code.cpu_seconds < own_of_code.cpu_seconds
    assert 3 * daemon.cpu_seconds < own_of_daemon.cpu_seconds


def test_probe_fails_on_an_absent_or_hanging_code_server(running: Running) -> None:
    """Without a listener, or with one that never answers."""
    nobody = f"127.0.0.1:{free_port()}"

    away = running.probe(*PROBE, "code", "--address", nobody)
    os.kill(running.services.code.pid, signal.SIGSTOP)
    try:
        hanging = running.probe(*PROBE, "--seconds", "2", "code", "--address", running.services.code_address)
    finally:
        os.kill(running.services.code.pid, signal.SIGCONT)

    assert away.code == hanging.code == 1
    assert away.output.startswith(f"code server at {nobody}: failed to connect")
    assert hanging.output == f"code server at {running.services.code_address}: Deadline Exceeded\n"


def test_probe_fails_on_a_missing_heartbeat(running: Running, server: EmbeddedServer) -> None:
    """No heartbeat at all, all but one recent, or no storage. A thread that only an earlier daemon had is not
    missed.
    """
    with a_dagster(server) as other:
        url = {"BUFFER_DAGSTER_DATABASE_URL": other.storage_url}
        never = running.probe(*PROBE, "daemon", **url)
        beat(other, "SENSOR", seconds_ago=9 * OLDEST_BEAT_SECONDS_MAX, daemon_id="of before")
        beat(other, "SCHEDULER", seconds_ago=OLDEST_BEAT_SECONDS_MAX - 60)
        beat(other, "BACKFILL", seconds_ago=0)
        well = running.probe(*PROBE, "daemon", **url)
        beat(other, "SCHEDULER", seconds_ago=OLDEST_BEAT_SECONDS_MAX + 60)
        hanging = running.probe(*PROBE, "daemon", **url)
    away = running.probe(
        *PROBE, "daemon", BUFFER_DAGSTER_DATABASE_URL="postgresql+psycopg2://nobody@127.0.0.1:1/x"
    )

    assert (never.code, never.output) == (1, "daemon: no heartbeat yet\n")
    assert (well.code, well.output) == (0, "")
    assert hanging.code == away.code == 1
    assert hanging.output.startswith("daemon: the oldest heartbeat of its parts is 18")
    assert away.output.startswith("daemon: its storage: connection to server at")
    assert len(away.output.splitlines()) == 1


def beat(dagster: Installed, part: str, *, seconds_ago: int, daemon_id: str = "latest") -> None:
    """Write a heartbeat as Dagster's daemon does."""
    dagster.instance.add_daemon_heartbeat(
        DaemonHeartbeat(time.time() - seconds_ago, part, daemon_id, errors=[])
    )


def test_probe_finds_the_host_that_answers(running: Running) -> None:
    """With several hosts in SQLAlchemy's notation, as after a failover."""
    url = make_url(running.installed.storage_url)
    where = f"{url.query['host']}:{url.query['port']}"
    several = f"postgresql+psycopg2://{url.username}@/{url.database}?host=127.0.0.1:1&host={where}"

    probed = running.probe(*PROBE, "daemon", BUFFER_DAGSTER_DATABASE_URL=several)

    assert (probed.code, probed.output) == (0, "")
