"""Release runs that end in a real SIGKILL, each at one boundary between two of its statements.

python -m buffer_pipeline_tests.crasher, which reads `DATABASE_URL LIMIT BOUNDARY` from a line, forks a
process that drains what is due and dies at that boundary, and prints its exit code; 0 when it was through
before it came there. A LIMIT of 0 is none.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Engine, event

from buffer_pipeline.crew import ReleaseRun
from buffer_pipeline.database import make_engine
from buffer_pipeline.drain import drain_matured
from buffer_pipeline_tests.builders import DAY_7

BATCH_LIMIT: Final = 20


def drain(engine: Engine, *, limit: int | None = None) -> ReleaseRun:
    """Release what is due at DAY_7 in small batches."""
    return drain_matured(
        engine,
        due_by=DAY_7,
        source="a test",
        batch_limit=BATCH_LIMIT,
        limit=limit,
        clock=lambda _connection: DAY_7,
    )


def at_each_boundary(engine: Engine, act: Callable[[int, Any], None]) -> None:
    """Call `act` with a number, from 1, and the driver's connection, before and behind every statement of
    the engine's and every COMMIT.
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
    """Drain, and be killed at the boundary with this number."""

    def die(number: int, _driver_connection: object) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    engine = make_engine(url)
    at_each_boundary(engine, die)
    drain(engine, limit=limit)


def main() -> None:
    """Fork a process for each line of stdin."""
    make_engine("postgresql://nowhere/nothing")  # Loads the driver, once for all.
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
