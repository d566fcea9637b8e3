"""A second session, for locks during a release run."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine


@pytest.fixture
def other(engine: Engine) -> Iterator[Connection]:
    """A second session, for locks that block the run."""
    with engine.connect() as connection:
        yield connection
