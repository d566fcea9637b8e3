"""Dagster's storage in a database of the tests' server."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from sqlalchemy import text

from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer


def create_database(server: EmbeddedServer, name: str, *, template: str = "template1") -> None:
    """Create a database, as a copy of another one."""
    admin = make_engine(server.url("postgres", user="postgres"))
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template} OWNER buffer"))
    admin.dispose()


@contextmanager
def instance_on(server: EmbeddedServer, database: str) -> Iterator[dg.DagsterInstance]:
    """Yield a Dagster instance whose storage is this database."""
    url = server.url(database).set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)
    with dg.instance_for_test({"storage": {"postgres": {"postgres_url": url}}}) as instance:
        yield instance
