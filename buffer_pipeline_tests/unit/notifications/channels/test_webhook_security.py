"""The webhook channel verifies TLS, sends to no private address, and shows no secret."""

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import Engine

from buffer_pipeline.errors import SettingError
from buffer_pipeline.notifications.channels.channel import Unavailable, make_endpoint
from buffer_pipeline.notifications.channels.webhook import is_private
from buffer_pipeline.notifications.drain import drain
from buffer_pipeline.notifications.messages import Messages
from buffer_pipeline.notifications.outbox import list_deliveries
from buffer_pipeline_tests.support.builders import place_hold
from buffer_pipeline_tests.support.raw_receiver import RawReceiver
from buffer_pipeline_tests.support.webhook import NEW_SECRET, SECRET, options, send

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
def test_private_addresses_are_recognized(address: str) -> None:
    """Loopback, private, link-local, metadata, shared, multicast, also inside an IPv6 address."""
    assert is_private(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "::ffff:8.8.8.8"]
)
def test_public_addresses_are_recognized(address: str) -> None:
    """What anybody may reach."""
    assert not is_private(address)


def test_name_with_a_private_address_is_refused(no_database: Engine, httpserver: HTTPServer) -> None:
    """The resolved address counts, not the name. No packet is sent."""
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
        ({"secrets": [SECRET, NEW_SECRET, SECRET]}, "secrets"),
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
    """The message has the variable, the endpoint and the fault, but no secret."""
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

    assert SECRET not in f"{setting!r} {setting} {made!r} {made.options}"


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
    """No part of path or query is in the stored reason, the log or any repr."""
    caplog.set_level("DEBUG")
    with engine.begin() as connection:
        place_hold(connection)

    with RawReceiver(answer) as receiver:
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
    """A receiver with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = HTTPServer(host="127.0.0.1", ssl_context=context)
    server.start()
    server.expect_request("/hook").respond_with_data("")
    yield server
    server.stop()


def test_unknown_certificate_is_refused(no_database: Engine, secure_server: HTTPServer) -> None:
    """Nothing is sent."""
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        send(no_database, f"https://localhost:{secure_server.port}/hook")

    assert secure_server.log == []


def test_trusted_certificate_is_for_its_name_only(
    no_database: Engine, secure_server: HTTPServer, certificate: tuple[Path, Path]
) -> None:
    """With a trusted CA, messages go to the certificate's name and to no other."""
    send(no_database, f"https://localhost:{secure_server.port}/hook", ca_file=str(certificate[0]))
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        send(no_database, f"https://127.0.0.1:{secure_server.port}/hook", ca_file=str(certificate[0]))

    assert len(secure_server.log) == 1
