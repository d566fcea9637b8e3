"""The work of a releaser in a sandbox: to move its clock. In real books these statements find nothing."""

from datetime import UTC, datetime

from sqlalchemy import Engine

from buffer_pipeline.database import fetch
from buffer_pipeline.sandbox.clock import find_clock


def clock_is_moved(releaser: Engine) -> None:
    """Run each statement of an advance."""
    now = datetime.now(UTC)
    with releaser.begin() as connection:
        assert fetch(connection, "sandbox/try_lock")[0]["is_mine"]
        assert find_clock(connection) is None
        assert not fetch(connection, "sandbox/begin_advance", advance_from=now, advance_to=now)
        assert not fetch(connection, "sandbox/set_clock", now=now, worked_until=now)
        assert not fetch(connection, "sandbox/end_advance")
