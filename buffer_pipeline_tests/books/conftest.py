"""Fixtures of the crash tests: books and servers that may be broken, and a platform that calls the verbs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url, text

from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline_tests.support.cluster import Cluster, new_cluster
from buffer_pipeline_tests.support.crasher import drain
from buffer_pipeline_tests.support.crashes import HOLDS, EndState, end_of, engine_on, hold_due
from buffer_pipeline_tests.support.databases import fresh_books


@pytest.fixture(scope="module")
def due_books(server: EmbeddedServer) -> Iterator[str]:
    """The name of a database with due holds, to copy from."""
    with fresh_books(server) as url:
        with engine_on(url) as engine:
            hold_due(engine, HOLDS, wallets=7)
        yield url.partition("?")[0].rpartition("/")[2]


@pytest.fixture(scope="module")
def undisturbed(server: EmbeddedServer, due_books: str) -> EndState:
    """The end state of these books after an undisturbed release."""
    with fresh_books(server, due_books) as url, engine_on(url) as engine:
        drain(engine)
        return end_of(engine)


@pytest.fixture
def cluster(programs_and_user: tuple[Path, str | None]) -> Iterator[Cluster]:
    """A server that may be stopped. It allows twelve connections and one prepared transaction."""
    programs, user = programs_and_user
    with new_cluster(
        programs, user=user, settings={"max_connections": "12", "max_prepared_transactions": "1"}
    ) as cluster:
        yield cluster


@pytest.fixture
def platform(engine: Engine) -> Engine:
    """The books, next to a table of the platform."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE public.invoice (number text PRIMARY KEY)"))
    return engine


@pytest.fixture
def dsn(database_url: str) -> str:
    """The books' address as a libpq connection string."""
    return make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
