"""Releases of due holds, and early ones, with default arguments."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from buffer_pipeline.release import ReleaseBatch, release_early, release_matured
from buffer_pipeline_tests.support.builders import DAY_7, NOON, PAYER


def release_all(connection: Connection, now: datetime = DAY_7) -> ReleaseBatch:
    """Release all due holds."""
    return release_matured(connection, now=now, batch_limit=1000, source="a test")


def early(connection: Connection, **changes: Any) -> ReleaseBatch:
    """Release early as the payer, with some arguments changed."""
    return release_early(connection, **{"by": PAYER, "reason": "well done", "now": NOON, **changes})
