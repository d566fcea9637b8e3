"""A server whose machine is gone closes no connection, so clients need their own timeouts."""

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import URL, Engine, create_engine, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.orchestration.storage import Storage
from buffer_pipeline_tests.support.databases import fresh_books

LIMITS = {
    socket.TCP_KEEPIDLE: 30,
    socket.TCP_KEEPINTVL: 10,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 60_000,
}


def _carry(client: socket.socket, server: socket.socket) -> None:
    with client, server, suppress(OSError):
        others = {client: server, server: client}
        while True:
            for readable in select.select(others, (), ())[0]:
                if not (data := readable.recv(65_536)):
                    return
                others[readable].sendall(data)


@pytest.fixture
def over_tcp(server: EmbeddedServer) -> Iterator[URL]:
    """Yield the URL of the session's server over TCP, although it listens only on a Unix socket."""

    def serve() -> None:
        with suppress(OSError):  # It is closed at the end.
            while True:
                client, _ = listener.accept()
                behind = socket.socket(socket.AF_UNIX)
                behind.connect(str(server.socket_dir / f".s.PGSQL.{server.port}"))
                threading.Thread(target=_carry, args=(client, behind), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        host, port = listener.getsockname()
        # Not the template, which must have no connections.
        yield server.url("postgres", user="postgres").set(host=host, port=port, query={})
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def options_of(engine: Engine) -> Iterator[dict[int, int]]:
    """Yield the socket options of a connection."""
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
        driver_connection: Any = connection.connection.driver_connection
        with socket.socket(fileno=os.dup(driver_connection.fileno())) as connected:
            yield {option: connected.getsockopt(socket.IPPROTO_TCP, option) for option in LIMITS}
    engine.dispose()


def test_connections_to_the_books_have_limits(over_tcp: URL) -> None:
    """The system probes a silent peer after 30 seconds and gives up after another 30."""
    with options_of(make_engine(over_tcp)) as options:
        assert options == LIMITS


def test_connections_to_dagsters_storage_have_them_too(server: EmbeddedServer, over_tcp: URL) -> None:
    """Those of the webserver, which keeps them, and of the daemon, which opens a new one each time."""
    with fresh_books(server, template="template1") as empty:
        url = over_tcp.set(drivername="postgresql+psycopg2", database=make_url(empty).database)
        storage = Storage(url.render_as_string(hide_password=False))
        runs: Any = storage.run_storage

        with options_of(create_engine(storage.postgres_url, poolclass=NullPool)) as options:
            assert options == LIMITS
        runs.optimize_for_webserver(statement_timeout=5_000, pool_recycle=60, max_overflow=1)
        with options_of(runs._engine) as options:
            assert options == LIMITS


def test_url_can_override_the_limits(over_tcp: URL) -> None:
    """The URL can set other limits."""
    with options_of(make_engine(over_tcp.update_query_dict({"keepalives_idle": "7"}))) as options:
        assert options == {**LIMITS, socket.TCP_KEEPIDLE: 7}


def test_silent_server_times_out() -> None:
    """It accepts the connection and never answers, like a hanging machine."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        engine = make_engine(f"postgresql://buffer@127.0.0.1:{port}/buffer?connect_timeout=2")

        with pytest.raises(OperationalError, match="timeout"):
            engine.connect()
