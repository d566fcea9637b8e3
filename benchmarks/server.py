"""The server of the benchmarks: the embedded one, with the settings of a small production machine."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from sqlalchemy import Engine, text

from buffer_pipeline.database import make_engine, migrate
from buffer_pipeline.embedded import EmbeddedServer, embedded_server

SETTINGS: Final = {
    "shared_buffers": "2GB",
    "effective_cache_size": "12GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "maintenance_work_mem": "512MB",
    "random_page_cost": "1.1",
}
"""Settings that differ from PostgreSQL's defaults; fsync and synchronous_commit stay on."""

SHOWN: Final = (
    "server_version",
    *SETTINGS,
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "work_mem",
    "huge_pages_status",
)


@dataclass(frozen=True)
class BenchmarkServer:
    """A running server on which databases are made, copied and dropped."""

    embedded: EmbeddedServer

    def url(self, database: str, *, user: str = "buffer") -> str:
        """Return a database's URL."""
        return self.embedded.url(database, user=user).render_as_string(hide_password=False)

    def engine(self, database: str, *, user: str = "buffer") -> Engine:
        """Return an engine on a database, made as the program makes it."""
        return make_engine(self.url(database, user=user))

    def admin(self, statement: str, *, database: str = "postgres") -> None:
        """Run one statement as the superuser, outside a transaction."""
        url = self.embedded.url(database, user="postgres").set(drivername="postgresql").render_as_string()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def settings(self) -> dict[str, str]:
        """Return the server's settings."""
        engine = self.engine("postgres", user="postgres")
        with engine.connect() as connection:
            found = {name: str(connection.scalar(text(f"SHOW {name}"))) for name in SHOWN}
        engine.dispose()
        return found

    @contextmanager
    def books(self, *, copy_of: str | None = None) -> Iterator[str]:
        """Yield the name of a database with books, empty or copied; it is dropped at the end."""
        name = f"books_{os.urandom(4).hex()}"
        if copy_of is None:
            self.admin(f"CREATE DATABASE {name} OWNER buffer")
            engine = self.engine(name)
            migrate(engine)
            engine.dispose()
        else:
            self.admin(f"CREATE DATABASE {name} TEMPLATE {copy_of} STRATEGY FILE_COPY OWNER buffer")
        try:
            yield name
        finally:
            self.admin(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def benchmark_server() -> Iterator[BenchmarkServer]:
    """Yield the server, in a folder that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        home = Path(folder) / "home"
        with embedded_server(home):
            pass  # This makes the server. It reads the settings below when it starts again.
        with (home / "postgres" / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in SETTINGS.items())
        with embedded_server(home) as server:
            yield BenchmarkServer(server)
