"""How work is ended that waits for the server: for a lock, or for a standby that a commit must reach."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, Engine, event

_CANCEL_SECONDS_MAX: Final = 1


class Cancelable:
    """Connections that threads work on, so that another thread can end what runs on them.

    What is cancelled rolls back, but for a COMMIT that waits for a synchronous standby: it is durable on
    the primary, returns, and may be lost at a failover.
    """

    def __init__(self) -> None:
        self._since: dict[psycopg.Connection[Any], float] = {}

    @contextmanager
    def working_on(self, connection: Connection) -> Iterator[None]:
        """Let `cancel` end what runs on the connection meanwhile."""
        driver_connection: Any = connection.connection.driver_connection
        self._begin(driver_connection)
        try:
            yield
        finally:
            self._end(driver_connection)

    @contextmanager
    def working_by(self, engine: Engine) -> Iterator[None]:
        """Let `cancel` end what runs meanwhile on any connection that is taken from the engine."""
        event.listen(engine, "checkout", self._begin)
        event.listen(engine, "checkin", self._end)
        try:
            yield
        finally:
            event.remove(engine, "checkout", self._begin)
            event.remove(engine, "checkin", self._end)

    def cancel(self, *, after_seconds: float = 0) -> None:
        """End the statements that run now, on connections that were taken so long ago.

        Call it again until the threads have ended: one between two statements has nothing to cancel.
        """
        taken_before = time.monotonic() - after_seconds
        for connection, since in list(self._since.items()):
            if since <= taken_before:
                with suppress(psycopg.Error):  # It is closed, or its server is gone.
                    connection.cancel_safe(timeout=_CANCEL_SECONDS_MAX)

    def _begin(self, driver_connection: Any, *_of_the_pool: object) -> None:
        self._since[driver_connection] = time.monotonic()

    def _end(self, driver_connection: Any, *_of_the_pool: object) -> None:
        self._since.pop(driver_connection, None)
