"""A Dagster with the repository's dagster.yaml, on a separate database."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import text

from buffer_pipeline.cli.dev_databases import dagster_url
from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import DAGSTER, EmbeddedServer
from buffer_pipeline.orchestration import health
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.paths import ROOT
from buffer_pipeline_tests.support.runs import release
from buffer_pipeline_tests.support.stack import wait_for


@dataclass(frozen=True)
class Installed:
    """A Dagster: its DAGSTER_HOME, its storage, and its instance in this process."""

    home: Path
    storage_url: str
    instance: dg.DagsterInstance


@contextmanager
def a_dagster(server: EmbeddedServer) -> Iterator[Installed]:
    """Yield the repository's instance on a separate database, without a daemon."""
    name = f"dagster_{os.urandom(6).hex()}"
    admin = make_engine(server.url("postgres", user="postgres")).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} OWNER {DAGSTER}"))
    url = dagster_url(server.url(name, user=DAGSTER)).render_as_string(hide_password=False)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "dagster.yaml", folder)
        with health.open_instance(Path(folder), storage_url=url) as instance:
            yield Installed(Path(folder), url, instance)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@contextmanager
def dagster_with_daemon(server: EmbeddedServer) -> Iterator[Installed]:
    """Yield a running Dagster after its first release. The environment names it and its books."""
    with (
        a_dagster(server) as dagster,
        fresh_books(server) as url,
        # Innermost, because opening it needs a variable in the environment.
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("BUFFER_DATABASE_URL", url.replace("//buffer@", f"//{DAGSTER}@"))
        environment.setenv("BUFFER_DAGSTER_DATABASE_URL", dagster.storage_url)
        environment.setenv("DAGSTER_HOME", str(dagster.home))
        with (dagster.home / "daemon.log").open("wb") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "dagster._daemon", "run", "--workspace", str(ROOT / "workspace.yaml")],
                cwd=dagster.home,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            release(dagster.instance)
            wait_for(
                lambda: health.schedules(dagster.instance)[0],
                what="the daemon's first state of the schedules",
            )
            now = datetime.now(UTC)
            wait_for(lambda: health.daemon(dagster.instance, now=now)[0], what="the daemon's heartbeat")
            yield dagster
        finally:
            os.killpg(daemon.pid, signal.SIGINT)
            daemon.wait(timeout=60)
