"""Serve the API by uvicorn until SIGTERM or Ctrl-C. What is being answered then is answered to its end."""

import asyncio
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn
from sqlalchemy import URL

from buffer_pipeline.api.app import create_app
from buffer_pipeline.errors import PaymentBufferError
from buffer_pipeline.settings import Settings

STOP_SECONDS_MAX: Final = 60
"""How long a request may go on after the signal, such as one whose client does not send its body."""


class _Server(uvicorn.Server):
    """With a time between the signal and the end of listening, in which `/readyz` answers 503."""

    def __init__(self, config: uvicorn.Config, *, stopping: threading.Event, notice_seconds: float) -> None:
        super().__init__(config)
        self._stopping = stopping
        self._notice_seconds = notice_seconds
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop: at once on the second signal, else after the notice."""
        if self._stopping.is_set() or not self._notice_seconds or self._loop is None:
            self._stopping.set()
            super().handle_exit(sig, frame)
            return
        self._stopping.set()
        self._loop.call_soon_threadsafe(self._loop.call_later, self._notice_seconds, self._end, sig)

    def _end(self, sig: int) -> None:
        super().handle_exit(sig, None)


def serve(
    url: URL,
    settings: Settings,
    *,
    host: str,
    port: int,
    connections: int,
    notice_seconds: float,
    listening: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT. `listening` gets the URL.

    Raises:
        PaymentBufferError: the address cannot be used.
    """
    stopping = threading.Event()
    app = create_app(url, settings, connections=connections, stopping=stopping)
    config = uvicorn.Config(
        app,
        lifespan="on",
        access_log=False,
        log_config=None,
        # The proxy in front of it, if there is one, does not have to be believed.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS_MAX,
    )
    if not host:
        raise PaymentBufferError("--host: must not be empty; 0.0.0.0 is every address of this machine")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(config.backlog)
    except (OSError, UnicodeError) as error:
        listener.close()
        # Python's text about a name that cannot be one has all of it.
        reason = getattr(error, "strerror", None) or "not an address"
        raise PaymentBufferError(f"{host}, port {port}: {reason}; see --host and --port") from None
    shown = f"[{host}]" if ":" in host else host
    listening(f"http://{shown}:{listener.getsockname()[1]}")
    _Server(config, stopping=stopping, notice_seconds=notice_seconds).run(sockets=[listener])
