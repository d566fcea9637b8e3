"""The webhook channel with real receivers: signatures, answers, and responses that are no answer."""

import socket
import threading
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import Engine
from standardwebhooks import Webhook, WebhookVerificationError

from buffer_pipeline.notifications.channels.channel import GiveUp, TryAgain, Unavailable, make_endpoint
from buffer_pipeline.notifications.channels.webhook import ANSWER_BYTES_MAX, retry_after
from buffer_pipeline.notifications.contact import set_contact
from buffer_pipeline.notifications.drain import drain
from buffer_pipeline.notifications.messages import Messages
from buffer_pipeline.settings import EndpointSetting
from buffer_pipeline_tests.support.builders import NOON, PAYEE, WAIT_SECONDS_MAX, place_hold
from buffer_pipeline_tests.support.raw_receiver import RawReceiver
from buffer_pipeline_tests.support.webhook import MESSAGE, NEW_SECRET, SECRET, options, send

# ---- the request


def test_receiver_verifies_the_message(no_database: Engine, httpserver: HTTPServer) -> None:
    """Body and headers pass the standardwebhooks library. The id is in both."""
    httpserver.expect_request("/hook", method="POST").respond_with_data("", status=204)

    send(no_database, httpserver.url_for("/hook"))

    request, _ = httpserver.log[0]
    payload = Webhook(SECRET).verify(request.get_data(), dict(request.headers))
    assert payload == MESSAGE.payload
    assert request.headers["webhook-id"] == f"ntf_{payload['data']['notification_id']}"
    assert request.headers["content-type"] == "application/json"


def test_tampered_message_is_refused_by_the_receiver(no_database: Engine, httpserver: HTTPServer) -> None:
    """The signature covers the body."""
    httpserver.expect_request("/hook").respond_with_data("")

    send(no_database, httpserver.url_for("/hook"))

    request, _ = httpserver.log[0]
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(request.get_data() + b" ", dict(request.headers))


def test_secret_is_changed_without_a_gap(no_database: Engine, httpserver: HTTPServer) -> None:
    """With two secrets, a receiver with either of them can verify."""
    httpserver.expect_request("/hook").respond_with_data("")

    send(no_database, httpserver.url_for("/hook"), secrets=[NEW_SECRET, SECRET])

    request, _ = httpserver.log[0]
    for secret in (NEW_SECRET, SECRET):
        assert Webhook(secret).verify(request.get_data(), dict(request.headers)) == MESSAGE.payload
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 32).verify(request.get_data(), dict(request.headers))


def test_connection_is_used_again(no_database: Engine) -> None:
    """Several messages share a connection."""
    with RawReceiver(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as receiver:
        send(no_database, receiver.url, times=5)

    assert (receiver.connections, receiver.requests) == (1, 5)


# ---- the answer


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_2xx_is_delivered(no_database: Engine, httpserver: HTTPServer, status: int) -> None:
    """Any 2xx counts as delivered."""
    httpserver.expect_request("/hook").respond_with_data("", status=status)

    send(no_database, httpserver.url_for("/hook"))


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_temporary_error_is_retried(no_database: Engine, httpserver: HTTPServer, status: int) -> None:
    """These statuses may change later. Retry-After is passed on."""
    httpserver.expect_request("/hook").respond_with_data(
        "later", status=status, headers={"Retry-After": "120"}
    )

    with pytest.raises(TryAgain) as refusal:
        send(no_database, httpserver.url_for("/hook"))

    assert (refusal.value.reason, refusal.value.after_seconds) == (f"HTTP {status}: later", 120)
    assert isinstance(refusal.value, Unavailable) == (status == 429 or status >= 500)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 422])
def test_other_4xx_is_final(no_database: Engine, httpserver: HTTPServer, status: int) -> None:
    """The reason has the beginning of the receiver's answer."""
    httpserver.expect_request("/hook").respond_with_data("no\r\nsuch\tworker " + "x" * 900, status=status)

    with pytest.raises(GiveUp) as refusal:
        send(no_database, httpserver.url_for("/hook"))

    assert refusal.value.reason.startswith(f"HTTP {status}: no such worker xxx")
    assert len(refusal.value.reason) < 230


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_refused(no_database: Engine, httpserver: HTTPServer, status: int) -> None:
    """Nothing is sent to its target."""
    elsewhere = httpserver.url_for("/elsewhere")
    httpserver.expect_request("/hook").respond_with_data("", status=status, headers={"Location": elsewhere})
    httpserver.expect_request("/elsewhere").respond_with_data("")

    with pytest.raises(GiveUp, match=f"HTTP {status}: redirects are not followed"):
        send(no_database, httpserver.url_for("/hook"))

    assert [request.path for request, _ in httpserver.log] == ["/hook"]


def test_retry_after_as_number_and_date() -> None:
    """Seconds or an HTTP date; anything else is ignored."""
    assert retry_after("90", now=NOON) == 90
    assert retry_after("Mon, 02 Mar 2026 12:01:30 GMT", now=NOON) == 90
    assert retry_after("Mon, 02 Mar 2026 11:00:00 GMT", now=NOON) == 0
    assert [retry_after(value, now=NOON) for value in (None, "", "soon", "-5", "1.5", "²", "9" * 9)] == [
        *[None] * 6,
        999_999_999,
    ]


# ---- receivers that misbehave


def test_refused_connection_is_retried(no_database: Engine) -> None:
    """A port without a listener is a temporary failure."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(Unavailable, match="Connect"):
        send(no_database, f"http://127.0.0.1:{port}/hook")


def test_slow_receiver_runs_into_the_timeout(no_database: Engine) -> None:
    """A receiver that accepts the message and does not answer is retried."""
    with RawReceiver(b"") as receiver, pytest.raises(Unavailable, match=r"no answer within 0\.3 seconds"):
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
def test_invalid_response_is_retried(no_database: Engine, answer: bytes) -> None:
    """A receiver that does not speak HTTP has not accepted the message."""
    with RawReceiver(answer) as receiver, pytest.raises(Unavailable):
        send(no_database, receiver.url, timeout_seconds=5)


def test_huge_answer_is_not_read(no_database: Engine) -> None:
    """The status counts, and only a little of an endless body is read."""
    endless = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
    with RawReceiver(endless, then=b"x" * 65_536) as receiver:
        send(no_database, receiver.url, timeout_seconds=5)

    # The sockets' buffers are filled although nobody reads them.
    assert receiver.sent < 100 * ANSWER_BYTES_MAX


def test_body_that_never_comes_does_not_undo_the_status(no_database: Engine) -> None:
    """A receiver that answered 200 has the message, whatever follows."""
    with RawReceiver(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n") as receiver:
        send(no_database, receiver.url, timeout_seconds=0.5)


# ---- names


def test_hanging_name_resolution_delays_nobody_else(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither another endpoint nor the end of the drain."""
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
