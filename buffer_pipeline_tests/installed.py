"""A Dagster by the repository's dagster.yaml, on a database of its own."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dagster as dg
from sqlalchemy import text

from buffer_pipeline.cli.dev import dagster_url
from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import DAGSTER, EmbeddedServer
from buffer_pipeline.orchestration import health

ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True)
class Installed:
    """A Dagster: its DAGSTER_HOME, its storage, and its instance in this process."""

    home: Path
    storage_url: str
    instance: dg.DagsterInstance


@contextmanager
def a_dagster(server: EmbeddedServer) -> Iterator[Installed]:
    """Yield the repository's instance on a database of its own, without a daemon."""
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
