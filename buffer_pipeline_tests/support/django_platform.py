"""The Django application's tables in the database of the books, and the scripts of deploy/django."""

import csv
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from sqlalchemy import Engine, make_url, text

from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline_tests.support.legacy import EXPORT
from buffer_pipeline_tests.support.paths import ROOT

DEPLOY: Final = ROOT / "deploy" / "django"
TABLES: Final = ("accounts_accounts", "jobs", "accounts_wallet", "accounts_transaction", "job_disputes")
"""In the order of their foreign keys."""


@dataclass(frozen=True)
class Platform:
    """A database with the Django application's filled tables and empty books."""

    server: EmbeddedServer
    url: str
    engine: Engine

    @property
    def libpq_url(self) -> str:
        """Its address for psql."""
        return make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False)


def load(platform: Platform) -> None:
    with psycopg.connect(platform.libpq_url) as connection:
        for table in TABLES:
            content = (EXPORT / f"{table}.csv").read_text(encoding="utf-8")
            header = next(csv.reader([content.partition("\n")[0]]))
            columns = ", ".join(f'"{column}"' for column in header)
            with connection.cursor().copy(
                f"COPY public.{table} ({columns}) FROM STDIN WITH (FORMAT csv, HEADER)"
            ) as copy:
                copy.write(content)
            connection.execute(
                f"SELECT setval(pg_get_serial_sequence('public.{table}', '{header[0]}'), 100000)"
            )


def psql(platform: Platform, script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [programs(platform) / "psql", platform.libpq_url, "--quiet", "--file", DEPLOY / script],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def programs(platform: Platform) -> Path:
    """Return the folder of the server's psql."""
    admin = make_engine(platform.server.url("postgres", user="postgres"))
    with admin.connect() as connection:
        found = connection.scalar(text("SELECT setting FROM pg_config WHERE name = 'BINDIR'"))
    admin.dispose()
    return Path(str(found))


def export(platform: Platform, directory: Path) -> Path:
    directory.mkdir()
    done = psql(platform, "export.sql", directory)
    assert done.stderr == ""
    return directory


def rollback(platform: Platform, cwd: Path) -> None:
    done = psql(platform, "rollback.sql", cwd)
    assert done.stderr == ""
