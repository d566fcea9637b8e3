"""Release runs that end in a real SIGKILL, each at one boundary between two statements.

    python -m buffer_pipeline_tests.support.crasher

reads `DATABASE_URL LIMIT BOUNDARY` from each line, forks a process that drains what is due and dies at that
boundary,
and prints its exit code, which is 0 if it finished before the boundary. A LIMIT of 0 means none.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Engine, event

from buffer_pipeline.database import make_engine
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.release_run.worker_pool import ReleaseRun
from buffer_pipeline_tests.support.builders import DAY_7

BATCH_LIMIT: Final = 20


def drain(engine: Engine, *, limit: int | None = None) -> ReleaseRun:
    """Release what is due at DAY_7 in small batches."""
    return release_all_due(
        engine,
        due_by=DAY_7,
        source="a test",
        batch_limit=BATCH_LIMIT,
        limit=limit,
        clock=lambda _connection: DAY_7,
    )


def at_each_boundary(engine: Engine, act: Callable[[int, Any], None]) -> None:
    """Call `act` with a number, from 1, and the driver's connection, before and after every statement and
    every COMMIT of the engine.
    """
    passed = 0

    def boundary(driver_connection: Any) -> None:
        nonlocal passed
        passed += 1
        act(passed, driver_connection)

    def statement(connection: Any, *_arguments: object) -> None:
        boundary(connection.connection.driver_connection)

    event.listen(engine, "before_cursor_execute", statement)
    event.listen(engine, "after_cursor_execute", statement)
    commit = engine.dialect.do_commit

    def do_commit(connection: Any) -> None:
        boundary(connection.driver_connection)
        commit(connection)
        boundary(connection.driver_connection)

    vars(engine.dialect)["do_commit"] = do_commit


def drain_and_die(url: str, *, limit: int | None, at: int) -> None:
    """Drain, and die at the boundary with this number."""

    def die(number: int, _driver_connection: object) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    engine = make_engine(url)
    at_each_boundary(engine, die)
    drain(engine, limit=limit)


def main() -> None:
    """Fork a process for each line of stdin."""
    make_engine("postgresql://nowhere/nothing")  # Loads the driver once.
    for line in sys.stdin:
        url, limit, at = line.split()
        pid = os.fork()
        if pid == 0:
            drain_and_die(url, limit=int(limit) or None, at=int(at))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
