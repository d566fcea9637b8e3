"""A running API for each file of tests, or for each test."""

from collections.abc import Iterator

import pytest

from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline_tests.support.api import Api, running_api
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.sandboxes import started


@pytest.fixture(scope="module")
def api(server: EmbeddedServer) -> Iterator[Api]:
    """A running API on books of its own, with a key for each role."""
    with fresh_books(server) as url, running_api(url) as running:
        yield running


@pytest.fixture(scope="module")
def api_of_sandbox(server: EmbeddedServer) -> Iterator[Api]:
    """A running API on a sandbox, with a key for each role."""
    with fresh_books(server) as url:
        engine = make_engine(url)
        started(engine)
        engine.dispose()
        with running_api(url) as running:
            yield running
