"""The webhook channel against real receivers: signed, TLS verified, no redirects, nothing private."""

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import Engine, create_engine
from standardwebhooks import Webhook, WebhookVerificationError

from buffer_pipeline.contact import set_contact
from buffer_pipeline.delivery.channel import GiveUp, TryAgain, Unavailable, make_endpoint
from buffer_pipeline.delivery.drain import drain
from buffer_pipeline.delivery.webhook import ANSWER_BYTES_MAX, is_private, retry_after
from buffer_pipeline.errors import SettingError
from buffer_pipeline.messages import Message, Messages, samples
from buffer_pipeline.outbox import list_deliveries
from buffer_pipeline.settings import EndpointSetting
from buffer_pipeline_tests.builders import PAYEE, WAIT_SECONDS_MAX, place_hold
from buffer_pipeline_tests.conftest import NOON

OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
MESSAGE: Message = Messages().render(next(samples("PAYMENT_RELEASED")), None)


@pytest.fixture(scope="module")
def no_database() -> Engine:
    """An engine that the channel does not use."""
    return create_engine("postgresql+psycopg://nowhere.invalid/books")


def options(url: str, **others: Any) -> EndpointSetting:
    """Return the setting of an endpoint."""
    return EndpointSetting(
        **{"name": "backend", "channel": "webhook", "url": url, "secrets": [OLD], **others}
    )


def send(engine: Engine, url: str, *, times: int = 1, message: Message = MESSAGE, **others: Any) -> None:
    """Send a message, in turn, over one open channel."""
    made = make_endpoint(options(url, **{"allow_private": True, **others}))

    async def sending() -> None:
        async with made.channel.open(engine=engine) as sender:
            for _ in range(times):
                await sender.send(message)

    asyncio.run(sending())


# ---- what a receiver gets


def test_receiver_verifies_the_message(no_database: Engine, httpserver: HTTPServer) -> None:
    """Body and headers pass the standardwebhooks library; the id stands in both."""
    httpserver.expect_request("/hook", method="POST").respond_with_data("", status=204)

    send(no_database, httpserver.url_for("/hook"))

    request, _ = httpserver.log[0]
    payload = Webhook(OLD).verify(request.get_data(), dict(request.headers))
    assert payload == MESSAGE.payload
    assert request.headers["webhook-id"] == f"ntf_{payload['data']['notification_id']}"
    assert request.headers["content-type"] == "application/json"


def test_tampered_message_is_refused_by_the_receiver(no_database: Engine, httpserver: HTTPServer) -> None:
    """The signature covers the body."""
    httpserver.expect_request("/hook").respond_with_data("")

    send(no_database, httpserver.url_for("/hook"))

    request, _ = httpserver.log[0]
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(request.get_data() + b" ", dict(request.headers))


def test_secret_is_changed_without_a_gap(no_database: Engine, httpserver: HTTPServer) -> None:
    """With two secrets a receiver that has either of them verifies."""
    httpserver.expect_request("/hook").respond_with_data("")

    send(no_database, httpserver.url_for("/hook"), secrets=[NEW, OLD])

    request, _ = httpserver.log[0]
    for secret in (NEW, OLD):
        assert Webhook(secret).verify(request.get_data(), dict(request.headers)) == MESSAGE.payload
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 32).verify(request.get_data(), dict(request.headers))


def test_connection_is_used_again(no_database: Engine) -> None:
    """Several messages go over one connection."""
    with Receiver(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as receiver:
        send(no_database, receiver.url, times=5)

    assert (receiver.connections, receiver.requests) == (1, 5)


# ---- what it answers


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_2xx_is_delivered(no_database: Engine, httpserver: HTTPServer, status: int) -> None:
    """Any 2xx has the message delivered."""
    httpserver.expect_request("/hook").respond_with_data("", status=status)

    send(no_database, httpserver.url_for("/hook"))


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_passing_trouble_is_tried_again(no_database: Engine, httpserver: HTTPServer, status: int) -> None:
    """These answers may be other ones later; how long the receiver asks to wait is told."""
    httpserver.expect_request("/hook").respond_with_data(
        "later", status=status, headers={"Retry-After": "120"}
    )

    with pytest.raises(TryAgain) as refusal:
        send(no_database, httpserver.url_for("/hook"))

    assert (refusal.value.reason, refusal.value.after_seconds) == (f"HTTP {status}: later", 120)
    assert isinstance(refusal.value, Unavailable) == (status == 429 or status >= 500)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 422])
def test_other_4xx_is_final(no_database: Engine, httpserver: HTTPServer, status: int) -> None:
    """The reason has the beginning of what the receiver said."""
    httpserver.expect_request("/hook").respond_with_data("no\r\nsuch\tworker " + "x" * 900, status=status)

    with pytest.raises(GiveUp) as refusal:
        send(no_database, httpserver.url_for("/hook"))

    assert refusal.value.reason.startswith(f"HTTP {status}: no such worker xxx")
    assert len(refusal.value.reason) < 230


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_refused(no_database: Engine, httpserver: HTTPServer, status: int) -> None:
    """Nothing is sent to where it points."""
    elsewhere = httpserver.url_for("/elsewhere")
    httpserver.expect_request("/hook").respond_with_data("", status=status, headers={"Location": elsewhere})
    httpserver.expect_request("/elsewhere").respond_with_data("")

    with pytest.raises(GiveUp, match=f"HTTP {status}: redirects are not followed"):
        send(no_database, httpserver.url_for("/hook"))

    assert [request.path for request, _ in httpserver.log] == ["/hook"]


def test_retry_after_as_number_and_date() -> None:
    """Seconds, or an HTTP date; what is neither says nothing."""
    assert retry_after("90", now=NOON) == 90
    assert retry_after("Mon, 02 Mar 2026 12:01:30 GMT", now=NOON) == 90
    assert retry_after("Mon, 02 Mar 2026 11:00:00 GMT", now=NOON) == 0
    assert [retry_after(value, now=NOON) for value in (None, "", "soon", "-5", "1.5", "²", "9" * 9)] == [
        *[None] * 6,
        999_999_999,
    ]


# ---- receivers that misbehave


class Receiver:
    """Answers each request on a raw socket with the same bytes, then holds still."""

    def __init__(self, answer: bytes, *, then: bytes = b"", read: bool = True) -> None:
        self.connections = self.requests = self.sent = 0
        self._answer, self._then, self._read = answer, then, read
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/hook"

    def __enter__(self) -> "Receiver":
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            try:
                while self._read and (head := self._request(connection)):
                    assert head
                    self.requests += 1
                    connection.sendall(self._answer)
                    while self._then:
                        connection.sendall(self._then)
                        self.sent += len(self._then)
                if not self._read:
                    connection.sendall(self._answer)
                    connection.recv(1 << 20)
            except OSError:
                return

    def _request(self, connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = connection.recv(1 << 16)
            if not chunk:
                return b""
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        )
        while len(body) < length:
            body += connection.recv(1 << 16)
        return head


def test_nobody_answers(no_database: Engine) -> None:
    """A port that nobody listens on is trouble that may pass."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(Unavailable, match="Connect"):
        send(no_database, f"http://127.0.0.1:{port}/hook")


def test_slow_receiver_runs_into_the_timeout(no_database: Engine) -> None:
    """A receiver that takes the message and says nothing is tried again."""
    with Receiver(b"") as receiver, pytest.raises(Unavailable, match=r"no answer within 0\.3 seconds"):
        send(no_database, receiver.url, timeout_seconds=0.3)

    assert receiver.requests == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
    ],
    ids=["no HTTP", "a header of 100 KB", "no status"],
)
def test_what_is_no_answer_is_tried_again(no_database: Engine, answer: bytes) -> None:
    """Who does not speak HTTP has not taken the message."""
    with Receiver(answer) as receiver, pytest.raises(Unavailable):
        send(no_database, receiver.url, timeout_seconds=5)


def test_huge_answer_is_not_read(no_database: Engine) -> None:
    """A body without an end has the message delivered by its status, after little of it was read."""
    endless = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
    with Receiver(endless, then=b"x" * 65_536) as receiver:
        send(no_database, receiver.url, timeout_seconds=5)

    # What lies in the sockets' own buffers is sent and not read.
    assert receiver.sent < 100 * ANSWER_BYTES_MAX


def test_body_that_never_comes_does_not_undo_the_status(no_database: Engine) -> None:
    """A receiver that answered 200 has the message, whatever it does then."""
    with Receiver(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n") as receiver:
        send(no_database, receiver.url, timeout_seconds=0.5)


# ---- names


def test_name_that_hangs_holds_up_nobody(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that never answers delays neither another endpoint nor the end of the drain."""
    answers, outlived = threading.Event(), []
    resolve = socket.getaddrinfo

    def hang(host: Any, *args: Any, **others: Any) -> Any:
        if not str(host).endswith(".invalid"):
            return resolve(host, *args, **others)
        if not answers.wait(WAIT_SECONDS_MAX):
            outlived.append(host)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    webhooks = [
        make_endpoint(
            options(f"https://hangs{number}.invalid/hook", name=f"hangs{number}", timeout_seconds=1)
        )
        for number in range(40)
    ]
    mail = make_endpoint(
        EndpointSetting(
            name="mail", channel="email", host="hangs.invalid", sender="a@example.com", timeout_seconds=1
        )
    )
    inbox = make_endpoint(EndpointSetting(name="inbox", channel="inbox"))
    with engine.begin() as connection:
        set_contact(connection, owner=PAYEE, email="payee@example.com", now=NOON)
        place_hold(connection)

    drained = drain(engine, [*webhooks, mail, inbox], Messages(), seconds_max=10)
    answers.set()

    assert outlived == []
    assert drained.endpoints["inbox"].sent == 1
    assert {tally.retried for name, tally in drained.endpoints.items() if name != "inbox"} == {1}


# ---- addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.5", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fd00:ec2::254", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a00:5",
        "64:ff9b:1::a00:1", "fec0::1", "::7f00:1", "::ffff:0:7f00:1", "2001:db8::1", "3fff::1", "5f00::1",
        "2001:0:7f00:1::", "2001:0:4136:e378:8000:63bf:80ff:fffe", "2002:a00:1::", "192.0.0.192",
        "192.88.99.1",
    ],
)  # fmt: skip
def test_address_inside_is_private(address: str) -> None:
    """Loopback, private, link-local, metadata, shared, multicast: also inside an IPv6 address."""
    assert is_private(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "::ffff:8.8.8.8"]
)
def test_address_outside_is_public(address: str) -> None:
    """What anybody may reach."""
    assert not is_private(address)


def test_name_that_leads_inside_is_refused(no_database: Engine, httpserver: HTTPServer) -> None:
    """The address that would be connected to counts, not the name: no packet is sent."""
    httpserver.expect_request("/hook").respond_with_data("")

    with pytest.raises(Unavailable, match=r"(127\.0\.0\.1|::1) is a private address"):
        send(no_database, f"https://localhost:{httpserver.port}/hook", allow_private=False)

    assert httpserver.log == []


@pytest.mark.parametrize(
    ("changed", "fact"),
    [
        ({"url": "https://127.0.0.1/x"}, "127.0.0.1 is a private address"),
        ({"url": "https://[::1]/x"}, "::1 is a private address"),
        ({"url": "http://backend.example.com/x"}, "needs https://"),
        ({"url": "ftp://backend.example.com/x"}, "not a URL"),
        ({"url": "https://backend.example.com/x\r\nX: y"}, "not a URL"),
        ({"url": "https://user:hunter2@backend.example.com/x"}, "must not have a user"),
        ({"secrets": []}, "secrets"),
        ({"secrets": [OLD, NEW, OLD]}, "secrets"),
        ({"secrets": ["hunter2"]}, "each must be whsec_"),
        ({"secrets": ["whsec_hunter2"]}, "each must be whsec_"),
        ({"timeout_seconds": 31}, "timeout_seconds"),
        ({"concurrency": 0}, "concurrency"),
        ({"ca_file": "/nowhere/ca.pem"}, "no certificates can be read"),
        ({"hunter2": "hunter2x"}, "Extra inputs are not permitted"),
        ({"types": ["PAYMENT_LOST"]}, "no type 'PAYMENT_LOST'"),
        ({"channel": "pigeon"}, "no channel 'pigeon'"),
    ],
)
def test_wrong_options_are_named_and_not_shown(changed: dict[str, Any], fact: str) -> None:
    """The message names the variable, the endpoint and what is wrong, never a secret."""
    with pytest.raises(SettingError) as refusal:
        make_endpoint(options(**{"url": "https://backend.example.com/x", **changed}))

    message = str(refusal.value)
    assert message.startswith("BUFFER_ENDPOINTS: endpoint backend: ")
    assert fact in message
    assert "hunter2" not in message.replace("hunter2: Extra inputs", "")


def test_secrets_show_nowhere() -> None:
    """Neither the setting nor the channel's options print a secret."""
    setting = options("https://backend.example.com/x")
    made = make_endpoint(setting)

    assert OLD not in f"{setting!r} {setting} {made!r} {made.options}"


@pytest.mark.parametrize("target", ["/hook/hunter2", "/hook?token=hunter2", "/hunter2?a=b&c=d"])
@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense hunter2\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 27\r\n\r\nCannot POST /x/hunter2 there",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
    ids=["no HTTP", "repeated", "a header of 100 KB"],
)
def test_secret_in_the_url_shows_nowhere(
    engine: Engine, caplog: pytest.LogCaptureFixture, target: str, answer: bytes
) -> None:
    """Neither the stored reason nor the log nor any repr has a part of path or query."""
    caplog.set_level("DEBUG")
    with engine.begin() as connection:
        place_hold(connection)

    with Receiver(answer) as receiver:
        setting = options(receiver.url.replace("/hook", target), allow_private=True)
        made = make_endpoint(setting)
        drain(engine, [made], Messages())

    with engine.begin() as connection:
        reason = list_deliveries(connection)[0].reason
    assert reason
    assert receiver.requests == 1
    assert "hunter2" not in f"{reason} {caplog.text} {setting!r} {made!r} {made.options} {made.channel!r}"


# ---- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for `localhost`, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.fixture
def secure_server(certificate: tuple[Path, Path]) -> Iterator[HTTPServer]:
    """A receiver that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = HTTPServer(host="127.0.0.1", ssl_context=context)
    server.start()
    server.expect_request("/hook").respond_with_data("")
    yield server
    server.stop()


def test_unknown_certificate_is_refused(no_database: Engine, secure_server: HTTPServer) -> None:
    """A certificate that nobody vouches for: nothing is sent."""
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        send(no_database, f"https://localhost:{secure_server.port}/hook")

    assert secure_server.log == []


def test_trusted_certificate_is_for_its_name_only(
    no_database: Engine, secure_server: HTTPServer, certificate: tuple[Path, Path]
) -> None:
    """With the CA trusted, its own name is sent to, another one not."""
    send(no_database, f"https://localhost:{secure_server.port}/hook", ca_file=str(certificate[0]))
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        send(no_database, f"https://127.0.0.1:{secure_server.port}/hook", ca_file=str(certificate[0]))

    assert len(secure_server.log) == 1
