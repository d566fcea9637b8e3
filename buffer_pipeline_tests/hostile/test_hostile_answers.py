"""Receivers with arbitrary answers: each gives an outcome and a clean reason, in limited time and memory."""

import asyncio
import gzip
import socket
import threading
import time
import tracemalloc
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine

from buffer_pipeline.notifications.channels.channel import Endpoint, GiveUp, Sender, TryAgain, make_endpoint
from buffer_pipeline.notifications.channels.webhook import retry_after
from buffer_pipeline.notifications.drain import drain
from buffer_pipeline.notifications.messages import Message, Messages, samples
from buffer_pipeline.notifications.outbox import DELIVERY_REASON_LENGTH_MAX, DeliveryState, list_deliveries
from buffer_pipeline.settings import EndpointSetting
from buffer_pipeline_tests.support.builders import NOON, place_hold
from buffer_pipeline_tests.support.hostile import cases, numbers, require_silence, texts

TOKEN: Final = "Swordfish+in/the query"
QUERY: Final = "Swordfish%2Bin%2Fthe+query"
SIGNING: Final = "whsec_c3dvcmRmaXNoLXN3b3JkZmlzaC1zd29yZGZpc2g="
MESSAGE: Final[Message] = Messages().render(next(samples("PAYMENT_RELEASED")), None)
SECONDS_MAX: Final = 0.5


def endpoint(port: int, name: str = "backend") -> Endpoint:
    """Return a webhook endpoint on this port with a token in its URL."""
    url = f"http://127.0.0.1:{port}/hook?token={QUERY}"
    return make_endpoint(
        EndpointSetting(
            name=name,
            channel="webhook",
            url=url,
            secrets=[SIGNING],
            allow_private=True,
            timeout_seconds=SECONDS_MAX,
        )
    )


def require_clean(reason: str | None) -> None:
    """Fail unless the reason is one non-empty line without a secret."""
    assert reason
    assert len(reason) <= DELIVERY_REASON_LENGTH_MAX
    assert len(reason.splitlines()) == 1
    assert not any(unicodedata.category(each) in {"Cc", "Cs"} or each in "\u202e\u2028" for each in reason)
    require_silence(reason, TOKEN, QUERY, SIGNING, SIGNING.removeprefix("whsec_"))


def length_of(head: bytes) -> int:
    """Return the length of a request's body."""
    lines = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return int(lines[0].partition(b":")[2]) if lines else 0


class Loop:
    """An event loop with an open sender, and a receiver that answers each request with the case's bytes."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.answer = b""
        self._opening = self._opened()
        self._sender = self.loop.run_until_complete(self._opening.__aenter__())

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Sender]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        made = endpoint(server.sockets[0].getsockname()[1])
        async with made.channel.open(engine=create_engine("postgresql+psycopg://")) as sender:
            yield sender
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(length_of(head))
            writer.write(self.answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def close(self) -> None:
        """Close the sender, the receiver and the loop."""
        self.loop.run_until_complete(self._opening.__aexit__(None, None, None))
        self.loop.run_until_complete(asyncio.sleep(0.1))
        self.loop.close()

    def send(self, answer: bytes) -> str | None:
        """Send one message; return the reason why it was not accepted, or None."""
        self.answer = answer
        try:
            self.loop.run_until_complete(self._sender.send(MESSAGE))
        except (TryAgain, GiveUp) as refusal:
            return refusal.reason
        return None


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    """A sender that stays open for all cases."""
    opened = Loop()
    yield opened
    opened.close()


statuses: Final = st.one_of(
    st.integers(100, 599).map(str),
    st.sampled_from(("0", "99", "600", "999", "1000", "-1", "２００", "2e2", "OK", "", "200")),
)
versions: Final = st.sampled_from(
    (b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2", b"http/1.1", b"ICY", b"")
)
headers: Final = st.one_of(
    st.sampled_from(
        (
            b"Content-Length: 5",
            b"Content-Length: 0",
            b"Content-Length: -1",
            b"Content-Length: 99999999999999999999",
            b"Content-Length: 1e3",
            b"Content-Length: \xef\xbc\x95",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Content-Encoding: gzip",
            b"Content-Encoding: br",
            b"Location: http://169.254.169.254/",
            b"Location: //",
            b"Connection: close",
            b"Connection: upgrade",
            b"Upgrade: websocket",
            b"Set-Cookie: a=b",
            b"Retry-After: 5",
            b"Retry-After: -5",
            b"Content-Type: text/html; charset=nonsense",
            b"Content-Type: \xff",
            b"X: \x00",
            b"\xff\xfe: x",
            b": x",
            b"no colon",
            b" folded",
            b"Trailer: x",
            b"Date: yesterday",
        )
    ),
    st.integers(0, 70_000).map(lambda length: b"X: " + b"x" * length),
    st.builds(
        lambda value: b"Retry-After: " + value.encode("utf-8", "replace")[:200], st.one_of(numbers, texts)
    ),
    st.binary(max_size=20),
)
bodies: Final = st.one_of(
    st.binary(max_size=40),
    texts.map(lambda body: body.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        (
            b"",
            b"5\r\nhello\r\n0\r\n\r\n",
            b"zz\r\nhello\r\n",
            b"5\r\nhello",
            b"fffffffffffffffffffff\r\n",
            b"-5\r\nhello\r\n",
            gzip.compress(b"x" * 1_000_000),
            TOKEN.encode(),
            QUERY.encode(),
            b"/hook?token=" + QUERY.encode(),
            b"Swordfish%2Bin%2Fthe%20query",
            b"Swordfish%252Bin",
            b"\x1b[2J\x07",
            "\u202e\u2028".encode(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 3,
        )
    ),
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Draw an answer: almost HTTP, possibly after several interim answers, or no HTTP at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.one_of(st.binary(max_size=60), st.just(b"\r\n" * 50), st.just(b"SSH-2.0-x\r\n")))
    interim = draw(st.sampled_from((0, 0, 0, 0, 1, 40)))
    end = draw(st.sampled_from((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r")))
    line = (
        draw(versions)
        + b" "
        + draw(statuses).encode()
        + b" "
        + draw(st.sampled_from((b"OK", b"", b"\xff", b"x" * 9_000)))
    )
    head = end.join([line, *draw(st.lists(headers, max_size=4)), b"", b""])
    return b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * interim + head + draw(bodies)


@cases(3_300)
@given(answer=answers())
def test_every_answer_is_an_outcome(loop: Loop, answer: bytes) -> None:
    """For any bytes, the message is delivered or fails with a one-line reason, and the channel
    stays usable.
    """
    began = time.monotonic()

    reason = loop.send(answer)

    assert time.monotonic() - began < SECONDS_MAX + 2
    if reason is not None:
        require_clean(reason)


def test_channel_is_usable_after_hostile_answers(loop: Loop) -> None:
    """The next good answer delivers its message."""
    assert loop.send(b"HTTP/1.1 204 No Content\r\n\r\n") is None


@cases(300)
@given(value=st.one_of(numbers, texts, st.dates().map(lambda day: f"{day:%a, %d %b %Y} 12:00:00 GMT")))
def test_every_retry_after_is_seconds_or_nothing(value: str) -> None:
    """It is never negative and always a number."""
    seconds = retry_after(value, now=NOON)

    assert seconds is None or 0 <= seconds < 10**12


# ---- drains

Talk = Callable[[socket.socket], None]


def drip(connection: socket.socket) -> None:
    """Send one byte at a time, endlessly."""
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def flood(beginning: bytes, piece: bytes) -> Talk:
    """Send the same bytes endlessly."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(beginning)
        while True:
            connection.sendall(piece)

    return talk


def say(answer: bytes) -> Talk:
    """Send these bytes and close."""
    return lambda connection: connection.sendall(answer)


def reset(connection: socket.socket) -> None:
    """Reset the connection in the middle of an answer."""
    connection.sendall(b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nhalf")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


ECHO: Final = (
    f"no {QUERY} and {TOKEN} or {quote(TOKEN, safe='')} or {quote_plus(TOKEN)} or {quote(TOKEN)}".encode()
)
BOMB: Final = gzip.compress(b"\0" * 50_000_000)
MISBEHAVIOURS: Final[dict[str, tuple[Talk, DeliveryState]]] = {
    "drips": (drip, DeliveryState.WAITING),
    "headers without an end": (flood(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1_000), DeliveryState.WAITING),
    "one header without an end": (flood(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65_536), DeliveryState.WAITING),
    "interim answers": (flood(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100), DeliveryState.WAITING),
    "a body without an end": (flood(b"HTTP/1.1 500 Oops\r\n\r\n", b"x" * 65_536), DeliveryState.WAITING),
    "chunks without an end": (
        flood(b"HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 1_000),
        DeliveryState.DEAD,
    ),
    "a chunk that is huge": (
        flood(b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\nfffffff0\r\n", b"x" * 65_536),
        DeliveryState.WAITING,
    ),
    "a bomb": (
        say(b"HTTP/1.1 500 Oops\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB),
        DeliveryState.WAITING,
    ),
    "a redirect inside": (
        say(b"HTTP/1.1 307 Go\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 0\r\n\r\n"),
        DeliveryState.DEAD,
    ),
    "a redirect outside": (
        say(b"HTTP/1.1 301 Go\r\nLocation: https://example.com/\r\nContent-Length: 0\r\n\r\n"),
        DeliveryState.DEAD,
    ),
    "resets": (reset, DeliveryState.WAITING),
    "closes": (lambda _: None, DeliveryState.WAITING),
    "no status": (say(b"HTTP/1.1 9999 What\r\n\r\n"), DeliveryState.WAITING),
    "repeats the secret": (
        say(b"HTTP/1.1 410 Gone\r\nConnection: close\r\n\r\n" + ECHO),
        DeliveryState.DEAD,
    ),
}


class Receiver:
    """A server that accepts a request and then misbehaves."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> "Receiver":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                request = connection.recv(1 << 16)
                # Read all of it, because closing a connection with unread bytes resets it.
                while b"\r\n\r\n" not in request or len(request.partition(b"\r\n\r\n")[2]) < length_of(
                    request
                ):
                    request += connection.recv(1 << 16)
                self._talk(connection)
            except OSError:
                return


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_drain_ends_in_time_with_a_misbehaving_receiver(
    engine: Engine, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Within one send's time and limited memory. The delivery waits or is dead, with a one-line reason."""
    caplog.set_level("DEBUG")
    talk, state = MISBEHAVIOURS[name]
    with engine.begin() as connection:
        place_hold(connection)

    with Receiver(talk) as receiver:
        made = endpoint(receiver.port)
        tracemalloc.start()
        began = time.monotonic()
        drain(engine, [made], Messages(), seconds_max=5)
        seconds = time.monotonic() - began
        bytes_peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    with engine.begin() as connection:
        found = list_deliveries(connection)
    assert [each.state for each in found] == [state, state][: len(found)]
    require_clean(found[0].reason if found[0].reason else found[-1].reason)
    # Its time limit, and a second for cleaning up.
    assert seconds < 6
    assert bytes_peak < 20_000_000
    require_silence(f"{found} {caplog.text}", TOKEN, QUERY, SIGNING, "Swordfish")
