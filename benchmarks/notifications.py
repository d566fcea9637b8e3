"""How many webhooks per second a drain sends, with the receivers on the same machine.

    uv run python benchmarks/notifications.py                # 100,000 sends per case, 10,000 owners

There are three cases, each on its own books: every notification to one endpoint; a tenth of them to ten
endpoints; the same, but one of the ten never answers. `add_many_pending_earnings` writes the notifications.
This process drains them from the outbox (dispatch, claim, render, sign, send, settle). A receiver in another
process takes them and counts each id once. The rate is the number of received ids divided by the time until
the last one. Memory is the resident set of this process, after a tenth of the time and at its peak. Figures
are printed, never asserted.
"""

import argparse
import asyncio
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import ClassVar

from sqlalchemy import Engine, text

from buffer_pipeline.database import database_clock, make_engine, migrate
from buffer_pipeline.embedded import EmbeddedServer, embedded_server
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.notifications.channels.channel import Endpoint, make_endpoint
from buffer_pipeline.notifications.drain import drain
from buffer_pipeline.notifications.messages import Messages
from buffer_pipeline.settings import EndpointSetting

CHUNK = 5_000
ENDPOINTS = 10
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Receiver(asyncio.Protocol):
    """Answers 204 to every POST, except at /hangs, which never answers."""

    taken: ClassVar[set[tuple[bytes, bytes]]] = set()
    requests = 0
    last_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        """Answer each complete request."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end]
            lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            size = end + 4 + int(lines[b"content-length"])
            if len(self._data) < size:
                return
            self._data = self._data[size:]
            path = head.split(b" ", 2)[1]
            if path == b"/hangs":
                continue
            Receiver.requests += 1
            Receiver.taken.add((path, lines[b"webhook-id"]))
            Receiver.last_at = time.monotonic()
            assert isinstance(self._transport, asyncio.WriteTransport)
            self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")


def serve(pipe: Connection) -> None:
    """Run a receiver until the parent asks for its counts, and send them."""

    async def serving() -> None:
        server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.to_thread(pipe.recv)
        pipe.send((len(Receiver.taken), Receiver.requests, Receiver.last_at))

    asyncio.run(serving())


class Memory(threading.Thread):
    """Samples the resident set, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[float] = []
        self._over = threading.Event()

    def run(self) -> None:
        """Take a sample every tenth of a second."""
        while not self._over.wait(0.1):
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            self.samples.append(pages * PAGE_BYTES / 1e6)

    def figures(self) -> str:
        """Stop, and return the memory after a tenth of the time and at its peak."""
        self._over.set()
        self.join()
        return (
            f"{self.samples[len(self.samples) // 10]:.0f} MB at a tenth, {max(self.samples):.0f} MB at most"
        )


@contextmanager
def books(server: EmbeddedServer, *, notifications: int, owners: int) -> Iterator[Engine]:
    """Yield an engine on new books in which `notifications` notifications wait."""
    name = f"books_{os.urandom(4).hex()}"
    admin = make_engine(server.url("postgres", user="postgres")).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} OWNER buffer"))
    engine = make_engine(server.url(name))
    migrate(engine)
    for first in range(0, notifications, CHUNK):
        with engine.begin() as connection:
            now = database_clock(connection)
            add_many_pending_earnings(
                connection,
                [
                    Earning(
                        reference=f"earning-{number}",
                        job=f"job-{number}",
                        payee=f"worker-{number * 7919 % owners}",
                        payer=f"client-{number * 104729 % owners}",
                        amount=f"{100 + number % 900}.{number % 100:02d}",
                        currency="PHP",
                        title="Fix kitchen faucet",
                        held_at=now - timedelta(hours=1),
                    )
                    for number in range(first, min(first + CHUNK, notifications))
                ],
                now=now,
            )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def endpoint(port: int, path: str) -> Endpoint:
    """Return a webhook endpoint with the default options."""
    return make_endpoint(
        EndpointSetting.model_validate(
            {
                "name": path,
                "channel": "webhook",
                "url": f"http://127.0.0.1:{port}/{path}",
                "secrets": [SECRET],
                "allow_private": True,
            }
        )
    )


def measure(server: EmbeddedServer, what: str, *, notifications: int, owners: int, paths: list[str]) -> float:
    """Drain, print the figures, and return the number of webhooks received per second."""
    ours, theirs = multiprocessing.Pipe()
    receiver = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    receiver.start()
    port = ours.recv()
    with books(server, notifications=notifications, owners=owners) as engine:
        memory = Memory()
        memory.start()
        begun_at = time.monotonic()
        drained = drain(engine, [endpoint(port, path) for path in paths], Messages())
        seconds = time.monotonic() - begun_at
        ours.send("enough")
        taken, requests, last_at = ours.recv()
        rate: float = taken / (last_at - begun_at)
        print(
            f"{what}: {rate:,.0f} a second; {taken:,} taken of {requests:,} requests in"
            f" {last_at - begun_at:.1f} s, drained after {seconds:.1f} s; {memory.figures()};"
            f" sent {drained.sent:,}, to be retried {drained.retried:,}, waiting {drained.waiting:,}",
            flush=True,
        )
    receiver.join()
    return rate


def main() -> None:
    """Measure the three cases."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sends", type=int, default=100_000)
    parser.add_argument("--owners", type=int, default=10_000)
    arguments = parser.parse_args()
    healthy = [f"takes-{number}" for number in range(ENDPOINTS)]
    tenth = arguments.sends // ENDPOINTS
    with tempfile.TemporaryDirectory() as folder, embedded_server(Path(folder) / "home") as server:
        measure(
            server, "one endpoint", notifications=arguments.sends, owners=arguments.owners, paths=["takes"]
        )
        ten = measure(server, "ten endpoints", notifications=tenth, owners=arguments.owners, paths=healthy)
        hanging = measure(
            server,
            "ten endpoints, one hangs",
            notifications=tenth,
            owners=arguments.owners,
            paths=[*healthy[1:], "hangs"],
        )
        print(f"lost to the one that hangs: {1 - hanging / ten:.1%}")


if __name__ == "__main__":
    main()
