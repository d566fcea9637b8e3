"""Shared fixtures: a platform's tables, a free port, a pooler."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.django_platform import Platform, load
from buffer_pipeline_tests.support.legacy import LEGACY_APP
from buffer_pipeline_tests.support.platforms import login, manage, superuser
from buffer_pipeline_tests.support.pooler import Pooler, pgbouncer
from buffer_pipeline_tests.support.stack import free_port


@pytest.fixture
def platform(server: EmbeddedServer) -> Iterator[Platform]:
    """The shipped export in tables created by Django, with the platform's login."""
    with login(server, "buffer") as role, fresh_books(server) as url:
        engine = make_engine(url)
        with superuser(url).begin() as connection:
            connection.execute(text(f"GRANT CREATE ON SCHEMA public TO {role}"))
        found = Platform(server, url.replace("//buffer@", f"//{role}@"), engine)
        manage(LEGACY_APP, "migrate", "--run-syncdb", PLATFORM_DATABASE_URL=found.url)
        load(found)
        yield found
        engine.dispose()
        with superuser(url).begin() as connection:
            connection.execute(text(f"DROP OWNED BY {role}"))


@pytest.fixture
def port() -> int:
    """A free port."""
    return free_port()


@pytest.fixture(scope="module")
def pooler(server: EmbeddedServer) -> Iterator[Pooler]:
    """A pooler with two sessions in front of the session's server."""
    with pgbouncer(server) as running:
        yield running


@pytest.fixture
def pooled_url(pooler: Pooler, database_url: str) -> str:
    """The URL of fresh books through the pooler."""
    return pooler.url(database_url)
