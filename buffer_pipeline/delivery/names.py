"""Names of receivers, looked up on threads that nobody waits for.

getaddrinfo may hang for as long as the system's resolver likes, and nothing ends it. asyncio runs it on the
loop's default executor, which all endpoints share and whose threads asyncio.run joins in the end.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

THREADS_MAX: Final = 4
"""So many lookups of one open channel run at the same time, those included that nobody waits for any more."""

AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]
"""As socket.getaddrinfo has it."""

Result = TypeVar("Result")


class Names:
    """The lookups of one open channel."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(THREADS_MAX)

    async def look_up(self, host: str, port: int, *, family: int = socket.AF_UNSPEC) -> Sequence[AddressInfo]:
        """Return the addresses of a name, the best first, of kinds that this host has itself.

        Raises:
            OSError: it has none, or nobody knows.
        """
        look = partial(
            socket.getaddrinfo,
            host,
            port,
            family=family,
            type=socket.SOCK_STREAM,
            flags=socket.AI_ADDRCONFIG,
        )
        try:
            return await self.run(look)
        except UnicodeError:
            # A label is empty, or longer than 63 characters: nobody is asked for it.
            raise socket.gaierror(socket.EAI_NONAME, "No such name can exist") from None

    async def run(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns or raise what it raises; a cancelled caller leaves its thread alone."""
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Result] = loop.create_future()

        def succeed(result: Result) -> None:
            self._places.release()
            if not found.done():
                found.set_result(result)

        def fail(error: Exception) -> None:
            self._places.release()
            if not found.done():
                found.set_exception(error)

        def look() -> None:
            # A loop that has been closed meanwhile takes nothing any more.
            with suppress(RuntimeError):
                try:
                    result = work()
                except Exception as error:  # noqa: BLE001 - raised where it is waited for
                    loop.call_soon_threadsafe(fail, error)
                else:
                    loop.call_soon_threadsafe(succeed, result)

        threading.Thread(target=look, name="names", daemon=True).start()
        return await found
