"""What the endpoints of one drain share, and which of them still send."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, TypeVar

from psycopg.errors import QueryCanceled
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from buffer_pipeline.notifications.contact import Contact
from buffer_pipeline.notifications.messages import Message
from buffer_pipeline.notifications.notification import Notification

WATCH_SECONDS: Final = 0.1
"""How often a drain checks whether it must end, and an endpoint that waits whether it may send again."""

Clock = Callable[[Connection], datetime]
Result = TypeVar("Result")


class Renderer(Protocol):
    """Writes the text of notifications."""

    def render(self, notification: Notification, contact: Contact | None) -> Message:
        """Return what a channel sends."""


class DrainEnded(Exception):
    """A transaction was cancelled because the drain must end."""


class Activity:
    """The endpoints of a drain that send, by name. Once none does, the drain is over and stays over.

    An endpoint that sends claims and sends in rounds. One that waits, for a dispatch or for its probe, does
    not keep the drain from ending.
    """

    def __init__(self, endpoints: Iterable[str], *, is_over: Callable[[], bool]) -> None:
        self.sending = set(endpoints)
        self.dispatches = 0
        """How many times new deliveries were dispatched while an endpoint was sending."""
        self._waiting_for_dispatch: set[str] = set()
        self._is_over = is_over

    def note_dispatch(self) -> None:
        """Let the endpoints that wait for a dispatch send again.

        They count as sending from now on, before they notice it, so that the drain cannot end in between.
        """
        if self.sending:
            self.dispatches += 1
            self.sending |= self._waiting_for_dispatch
            self._waiting_for_dispatch.clear()

    async def wait_for_dispatch(self, endpoint: str, *, after: int) -> bool:
        """Wait until `dispatches` is above `after`; return False if the drain is over before."""
        if self.dispatches > after:
            return True
        self._waiting_for_dispatch.add(endpoint)
        dispatched = await self._wait(endpoint, lambda: self.dispatches > after)
        self._waiting_for_dispatch.discard(endpoint)
        return dispatched

    async def wait_for_probe(self, endpoint: str, *, seconds: float) -> bool:
        """Wait until a probe may be sent; return False if the drain is over before."""
        if seconds <= 0:
            return True
        probe_at = time.monotonic() + seconds
        return await self._wait(endpoint, lambda: time.monotonic() >= probe_at)

    async def _wait(self, endpoint: str, may_send: Callable[[], bool]) -> bool:
        self.sending.discard(endpoint)
        while self.sending and not self._is_over():
            if may_send():
                self.sending.add(endpoint)
                return True
            await asyncio.sleep(WATCH_SECONDS)
        return False


@dataclass(frozen=True, kw_only=True)
class DrainContext:
    """What the endpoints of one drain share."""

    engine: Engine
    messages: Renderer
    clock: Clock
    is_over: Callable[[], bool]
    activity: Activity
    database_threads: ThreadPoolExecutor
    """For claims, settlements and dispatches only. The event loop's own threads may all be blocked by
    lookups of receivers' names."""
    abandoned: threading.Event
    """Set when nobody waits any more for what a thread does."""
    after_settle: Callable[[int], None]

    async def in_database_thread(self, work: Callable[[], Result]) -> Result:
        """Run what talks to the database on a thread, so that the event loop goes on.

        Raises:
            DrainEnded: `work` was cancelled because the drain must end.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self.database_threads, work)
        except asyncio.CancelledError:
            self.abandoned.set()
            raise
        except OperationalError as error:
            if self.is_over() and isinstance(error.orig, QueryCanceled):
                raise DrainEnded from None
            raise
