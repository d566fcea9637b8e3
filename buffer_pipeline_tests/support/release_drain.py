"""A release run in this process: due holds, the drain, and its workers' threads."""

import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine

from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.release_run.worker_pool import ReleaseRun
from buffer_pipeline_tests.support.builders import DAY_7, NOON, PAYER, WAIT_SECONDS_MAX, place_hold


def drain(engine: Engine, **changes: Any) -> ReleaseRun:
    """Drain what is due at DAY_7, with some arguments changed."""
    arguments = {"due_by": DAY_7, "source": "a test", "clock": lambda _connection: DAY_7}
    return release_all_due(engine, **{**arguments, **changes})


def place(engine: Engine, number: int, **changes: Any) -> list[int]:
    """Commit a number of holds; return their ids."""
    with engine.begin() as connection:
        return [place_hold(connection, **changes) for _ in range(number)]


def place_many(engine: Engine, holds: int, *, payees: int = 1) -> None:
    """Commit holds of 10.00 PHP due at DAY_7, for this many payees in turn."""
    with engine.begin() as connection:
        add_many_pending_earnings(
            connection,
            [
                Earning(
                    reference=f"many-{number}",
                    job=f"job-{number}",
                    payee=f"worker-{number % payees}",
                    payer=PAYER,
                    amount="10.00",
                    currency="PHP",
                    held_at=NOON,
                )
                for number in range(holds)
            ],
            now=NOON,
        )


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Poll for a condition in another thread, with a deadline."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, f"{what}: it never happened"


def workers_alive() -> list[str]:
    """Return the names of the workers' threads that have not ended."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("release-")]
