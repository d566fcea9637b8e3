"""A webserver that records the requests that reach it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

Headers = dict[str, str]


@dataclass
class Webserver:
    """Replaces a Dagster webserver and records its requests."""

    address: str
    came: list[tuple[str, str, Headers]] = field(default_factory=list)


@contextmanager
def webserver(address: str) -> Iterator[Webserver]:
    """Answer every request at the address's port 3000, with 101 for a switch to websockets."""
    answering = Webserver(address)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            answering.came.append((self.command, self.path, dict(self.headers)))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(101 if self.headers.get("Upgrade") else 200)
            if self.headers.get("Upgrade"):
                self.send_header("Upgrade", "websocket")
                self.send_header("Connection", "Upgrade")
                self.close_connection = True
            else:
                self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_HEAD = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((address, 3000), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield answering
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
