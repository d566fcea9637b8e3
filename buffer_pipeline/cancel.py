"""Cancel statements that wait for the server: for a lock, or for a standby that a commit must reach."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, Engine, event

_CANCEL_SECONDS_MAX: Final = 1


class Cancelable:
    """Connections that threads work on, so that another thread can cancel their statements.

    A cancelled statement rolls back. The exception is a COMMIT that waits for a synchronous standby: it is
    durable on the primary, it returns, and a failover may lose it.
    """

    def __init__(self) -> None:
        self._since: dict[psycopg.Connection[Any], float] = {}

    @contextmanager
    def working_on(self, connection: Connection) -> Iterator[None]:
        """Let `cancel` reach the connection while the block runs."""
        driver_connection: Any = connection.connection.driver_connection
        self._begin(driver_connection)
        try:
            yield
        finally:
            self._end(driver_connection)

    @contextmanager
    def working_by(self, engine: Engine) -> Iterator[None]:
        """Let `cancel` reach every connection that is taken from the engine while the block runs."""
        event.listen(engine, "checkout", self._begin)
        event.listen(engine, "checkin", self._end)
        try:
            yield
        finally:
            event.remove(engine, "checkout", self._begin)
            event.remove(engine, "checkin", self._end)

    def cancel(self, *, after_seconds: float = 0) -> None:
        """Cancel the statements that run now, on connections that were taken at least `after_seconds` ago.

        Call it again until the threads have ended: a thread between two statements has nothing to cancel.
        """
        taken_before = time.monotonic() - after_seconds
        for connection, since in list(self._since.items()):
            if since <= taken_before:
                with suppress(psycopg.Error):  # The connection is closed, or its server is gone.
                    connection.cancel_safe(timeout=_CANCEL_SECONDS_MAX)

    def _begin(self, driver_connection: Any, *_of_the_pool: object) -> None:
        self._since[driver_connection] = time.monotonic()

    def _end(self, driver_connection: Any, *_of_the_pool: object) -> None:
        self._since.pop(driver_connection, None)
