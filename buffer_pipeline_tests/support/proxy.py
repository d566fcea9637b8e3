"""A proxy that cuts the connection instead of forwarding the answer to a COMMIT."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Thread
from typing import Final

from sqlalchemy.engine import make_url

COMMITTED: Final = b"C\x00\x00\x00\x0bCOMMIT\x00"
"""The CommandComplete message of a COMMIT, which the server sends once it is done."""


class CuttingProxy:
    """Forwards both directions, except the answer to one COMMIT: it closes both connections instead."""

    def __init__(self, socket_path: str, *, cut_at: int) -> None:
        self.cuts = 0
        self._socket_path = socket_path
        self._commits_left = cut_at
        self._lock = Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections."""
        # Only shutdown wakes a thread that waits in accept.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # It is closed.
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._socket_path)
                for source, sink, watched in ((client, server, False), (server, client, True)):
                    Thread(target=self._forward, args=(source, sink, watched), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, watched: bool) -> None:
        with suppress(OSError):
            while (received := source.recv(65536)) and not (watched and self._is_the_one(received)):
                sink.sendall(received)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _is_the_one(self, received: bytes) -> bool:
        if COMMITTED not in received:
            return False
        with self._lock:
            self._commits_left -= 1
            if self._commits_left == 0:
                self.cuts += 1
            return self._commits_left == 0


@contextmanager
def cutting_proxy(url: str, *, cut_at: int) -> Iterator[tuple[str, CuttingProxy]]:
    """Yield the books' URL through a proxy that swallows the answer to the `cut_at`-th COMMIT."""
    server = make_url(url)
    socket_path = f"{server.query['host']}/.s.PGSQL.{server.query['port']}"
    proxy = CuttingProxy(socket_path, cut_at=cut_at)
    query = {"sslmode": "disable", "gssencmode": "disable"}
    through = server.set(host="127.0.0.1", port=proxy.port, query=query)
    try:
        yield through.render_as_string(hide_password=False), proxy
    finally:
        proxy.close()
