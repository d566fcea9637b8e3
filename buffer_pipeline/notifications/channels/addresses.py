"""Looks up the names of receivers, on threads of its own.

getaddrinfo may hang for as long as the system's resolver does, and it cannot be ended. asyncio would run it
on the event loop's default executor. All endpoints share that, and asyncio.run waits for its threads at the
end.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

THREADS_MAX: Final = 4
"""How many lookups of one open channel run at the same time, including those whose caller is gone."""

AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]
"""As socket.getaddrinfo returns it."""

Result = TypeVar("Result")


class Names:
    """The lookups of one open channel."""

    def __init__(self) -> None:
        self._free_threads = asyncio.Semaphore(THREADS_MAX)

    async def look_up(self, host: str, port: int, *, family: int = socket.AF_UNSPEC) -> Sequence[AddressInfo]:
        """Return the addresses of a name, the best first, of address families that this host has itself.

        Raises:
            OSError: the name has no address, or the lookup failed.
        """
        resolve = partial(
            socket.getaddrinfo,
            host,
            port,
            family=family,
            type=socket.SOCK_STREAM,
            flags=socket.AI_ADDRCONFIG,
        )
        try:
            return await self.run(resolve)
        except UnicodeError:
            # A label is empty or longer than 63 characters. Such a name is not looked up.
            raise socket.gaierror(socket.EAI_NONAME, "No such name can exist") from None

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run `work` on a thread and return its result. The thread goes on when the caller is cancelled."""
        await self._free_threads.acquire()
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Result] = loop.create_future()

        def succeed(result: Result) -> None:
            self._free_threads.release()
            if not found.done():
                found.set_result(result)

        def fail(error: Exception) -> None:
            self._free_threads.release()
            if not found.done():
                found.set_exception(error)

        def work_and_report() -> None:
            # The event loop may be closed by now. Then nobody needs the result.
            with suppress(RuntimeError):
                try:
                    result = work()
                except Exception as error:  # noqa: BLE001 - raised to the caller
                    loop.call_soon_threadsafe(fail, error)
                else:
                    loop.call_soon_threadsafe(succeed, result)

        threading.Thread(target=work_and_report, name="names", daemon=True).start()
        return await found
