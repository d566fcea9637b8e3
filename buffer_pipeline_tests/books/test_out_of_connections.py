"""A server without a free connection is reported in one line, and nothing is half done."""

import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest

from buffer_pipeline.embedded import EmbeddedServer, embedded_server
from buffer_pipeline_tests.support.cluster import Cluster
from buffer_pipeline_tests.support.crasher import drain
from buffer_pipeline_tests.support.crashes import EndState, end_of, engine_on, failure
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.processes import start


@pytest.mark.parametrize("limit", [0, 3])
def test_release_reports_that_no_connection_is_free(
    server: EmbeddedServer, due_books: str, undisturbed: EndState, limit: int
) -> None:
    """If the database accepts no connection, or too few for all workers, a release ends with one line. The
    next one releases the rest.
    """
    admin_url = server.url("postgres", user="postgres").set(drivername="postgresql")
    with (
        fresh_books(server, due_books) as url,
        psycopg.connect(admin_url.render_as_string(), autocommit=True) as admin,
    ):
        database = url.partition("?")[0].rpartition("/")[2]
        admin.execute(f"ALTER DATABASE {database} CONNECTION LIMIT {limit}")

        code, line = failure(start("release", "--workers", "7", BUFFER_DATABASE_URL=url))

        admin.execute(f"ALTER DATABASE {database} CONNECTION LIMIT -1")
        with engine_on(url) as engine:
            end_of(engine)
            drain(engine)
            assert end_of(engine) == undisturbed
    assert code == (2 if limit == 0 else 1)
    assert line.startswith("BUFFER_DATABASE_URL: " if limit == 0 else "database: ")
    assert f'too many connections for database "{database}"' in line


def test_command_reports_that_the_server_has_no_connection_left(cluster: Cluster) -> None:
    """In one line."""
    url = cluster.server.books_url.render_as_string()
    dsn = cluster.server.books_url.set(drivername="postgresql").render_as_string()
    with ExitStack() as stack:
        with suppress(psycopg.OperationalError):
            for _ in range(50):
                stack.enter_context(psycopg.connect(dsn))

        code, line = failure(start("release", BUFFER_DATABASE_URL=url))

    assert code == 2
    assert line.startswith("BUFFER_DATABASE_URL: ")
    assert "connection slots" in line or "too many clients" in line


def test_command_reports_that_the_embedded_server_has_no_connection_left() -> None:
    """Even if its superuser gets none."""
    with ExitStack() as stack:
        # In pytest's own folder, another run of pytest would lock out the server's user.
        home = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "home"
        running = stack.enter_context(embedded_server(home))
        dsn = running.url("postgres", user="postgres").set(drivername="postgresql").render_as_string()
        with suppress(psycopg.OperationalError):
            for _ in range(200):
                stack.enter_context(psycopg.connect(dsn))

        code, line = failure(start("hold", "list", BUFFER_HOME=str(home)))

    assert code == 1
    assert line.startswith("embedded PostgreSQL: ")
    assert "too many clients" in line
