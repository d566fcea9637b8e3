"""The probes of health checks, on a real code server and a real daemon: right, wrong, and cheap."""

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
from buffer_pipeline_tests.conftest import fresh_books
from buffer_pipeline_tests.installed import Installed, a_dagster
from buffer_pipeline_tests.services import Services, services
from buffer_pipeline_tests.stack import free_port, wait_for

HEAVY: Final = ("dagster", "sqlalchemy", "pandas", "buffer_pipeline")
PROBE: Final = ("-m", "buffer_pipeline_start.probe")


@dataclass(frozen=True)
class Probed:
    """What a probe or a health check ended with, and what it took."""

    code: int
    said: str
    cpu_seconds: float


@dataclass(frozen=True)
class Running:
    """The services, and the instance that they are of."""

    installed: Installed
    services: Services

    def ask(self, *command: str, **environment: str) -> Probed:
        """Run a Python command as a health check of the services does."""
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
    """A code server and a daemon at work."""
    with (
        a_dagster(server) as installed,
        fresh_books(server) as database_url,
        services(installed, database_url) as started,
    ):
        required = set(installed.instance.get_required_daemon_types())
        wait_for(lambda: required <= set(installed.instance.get_daemon_heartbeats()), what="all heartbeats")
        yield Running(installed, started)


def test_they_pass_what_works(running: Running) -> None:
    """Both say nothing and exit 0."""
    code = running.ask(*PROBE, "code", "--address", running.services.code_address)
    daemon = running.ask(*PROBE, "daemon")

    assert (code.code, code.said) == (0, "")
    assert (daemon.code, daemon.said) == (0, "")


@pytest.mark.parametrize("part", ["code", "daemon"])
def test_they_load_nothing_heavy(running: Running, part: str) -> None:
    """Neither Dagster nor SQLAlchemy nor pandas nor this package: that is where the processor time went."""
    address = ("--address", running.services.code_address) if part == "code" else ()

    asked = running.ask("-X", "importtime", *PROBE, part, *address)

    loaded = {line.rpartition("|")[2].strip() for line in asked.said.splitlines()}
    assert asked.code == 0
    assert loaded & {"grpc", "psycopg2"} == {"grpc" if part == "code" else "psycopg2"}
    assert [name for name in loaded if name.partition(".")[0] in HEAVY] == []


def test_they_take_a_fraction_of_dagsters_own_checks(running: Running) -> None:
    """In one run: less than a third of the processor time of each."""
    host, _, port = running.services.code_address.partition(":")

    code = running.ask(*PROBE, "code", "--address", running.services.code_address)
    own_of_code = running.ask("-m", "dagster", "api", "grpc-health-check", "--host", host, "--port", port)
    daemon = running.ask(*PROBE, "daemon")
    own_of_daemon = running.ask("-m", "dagster._daemon", "liveness-check")

    figures = [each.cpu_seconds for each in (code, own_of_code, daemon, own_of_daemon)]
    print(
        "processor seconds: code {:.2f}, Dagster's {:.2f}; daemon {:.2f}, Dagster's {:.2f}".format(*figures)
    )
    assert [each.code for each in (code, own_of_code, daemon, own_of_daemon)] == [0, 0, 0, 0]
    assert 3 * code.cpu_seconds < own_of_code.cpu_seconds
    assert 3 * daemon.cpu_seconds < own_of_daemon.cpu_seconds


def test_a_code_server_that_is_away_or_hangs(running: Running) -> None:
    """Nobody listens; or somebody does, and answers nothing."""
    nobody = f"127.0.0.1:{free_port()}"

    away = running.ask(*PROBE, "code", "--address", nobody)
    os.kill(running.services.code.pid, signal.SIGSTOP)
    try:
        hanging = running.ask(*PROBE, "--seconds", "2", "code", "--address", running.services.code_address)
    finally:
        os.kill(running.services.code.pid, signal.SIGCONT)

    assert away.code == hanging.code == 1
    assert away.said.startswith(f"code server at {nobody}: failed to connect")
    assert hanging.said == f"code server at {running.services.code_address}: Deadline Exceeded\n"


def test_a_daemon_without_a_heartbeat(running: Running, server: EmbeddedServer) -> None:
    """Never one; all of them recent but one of the same daemon; and a storage that is away.

    A part that an earlier daemon had is nothing to miss.
    """
    with a_dagster(server) as other:
        url = {"BUFFER_DAGSTER_DATABASE_URL": other.storage_url}
        never = running.ask(*PROBE, "daemon", **url)
        beat(other, "SENSOR", seconds_ago=9 * OLDEST_BEAT_SECONDS_MAX, daemon_id="of before")
        beat(other, "SCHEDULER", seconds_ago=OLDEST_BEAT_SECONDS_MAX - 60)
        beat(other, "BACKFILL", seconds_ago=0)
        well = running.ask(*PROBE, "daemon", **url)
        beat(other, "SCHEDULER", seconds_ago=OLDEST_BEAT_SECONDS_MAX + 60)
        hanging = running.ask(*PROBE, "daemon", **url)
    away = running.ask(
        *PROBE, "daemon", BUFFER_DAGSTER_DATABASE_URL="postgresql+psycopg2://nobody@127.0.0.1:1/x"
    )

    assert (never.code, never.said) == (1, "daemon: no heartbeat yet\n")
    assert (well.code, well.said) == (0, "")
    assert hanging.code == away.code == 1
    assert hanging.said.startswith("daemon: the oldest heartbeat of its parts is 18")
    assert away.said.startswith("daemon: its storage: connection to server at")
    assert len(away.said.splitlines()) == 1


def beat(dagster: Installed, part: str, *, seconds_ago: int, daemon_id: str = "latest") -> None:
    """Note a heartbeat, as Dagster's daemon does."""
    dagster.instance.add_daemon_heartbeat(
        DaemonHeartbeat(time.time() - seconds_ago, part, daemon_id, errors=[])
    )


def test_a_storage_on_several_hosts(running: Running) -> None:
    """Named as SQLAlchemy wants them, the one that answers is asked: as after a failover."""
    url = make_url(running.installed.storage_url)
    where = f"{url.query['host']}:{url.query['port']}"
    several = f"postgresql+psycopg2://{url.username}@/{url.database}?host=127.0.0.1:1&host={where}"

    asked = running.ask(*PROBE, "daemon", BUFFER_DAGSTER_DATABASE_URL=several)

    assert (asked.code, asked.said) == (0, "")
