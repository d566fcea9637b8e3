"""Requests that are broken, huge or malicious: a clear 4xx, and never a 500."""

import json
import socket
from collections.abc import Iterator
from typing import Any, Final

import pytest
from sqlalchemy import text

from buffer_pipeline_tests.support.api import EARNING, Api

GOOD: Final = json.dumps(EARNING)


def changed(name: str, value: str) -> str:
    """Return the earning with the JSON text of one value replaced."""
    return GOOD.replace(json.dumps(EARNING[name]), value, 1)


BODIES: Final[dict[str, str | bytes]] = {
    "empty": "",
    "no JSON": "{",
    "a list": "[]",
    "a text": '"x"',
    "null": "null",
    "a number": "1",
    "two documents": GOOD + GOOD,
    "a key twice": GOOD[:-1] + ', "amount": "1.00"}',
    "NaN": changed("amount", "NaN"),
    "Infinity": changed("amount", "-Infinity"),
    "a float": changed("amount", "1250.5"),
    "a large float": changed("amount", "1e999"),
    "an integer": changed("amount", "1250"),
    "a huge integer": changed("amount", "9" * 5000),
    "a huge integer as text": changed("amount", json.dumps("9" * 5000)),
    "half a surrogate pair": changed("payee", r'"\ud800"'),
    "half a surrogate pair in a name": GOOD[:-1] + r', "\udfff": "x"}',
    "a NUL": changed("payee", r'"a\u0000b"'),
    "a control character": changed("payee", r'"a\u0007b"'),
    "many levels": changed("payee", "[" * 100_000 + "]" * 100_000),
    "an object for a text": changed("payee", "{}"),
    "true for a text": changed("payee", "true"),
    "an unknown field": GOOD[:-1] + ', "now": "2026-01-01T00:00Z"}',
    "another clock": GOOD[:-1] + ', "held_at": 1770000000}',
    "a time without a zone": GOOD[:-1] + ', "held_at": "2026-01-01T00:00"}',
    "a time far away": GOOD[:-1] + ', "release_date": "9999-12-31T23:59:59Z"}',
    "no currency": changed("currency", '"XXX"'),
    "a small currency": changed("currency", '"php"'),
    "an amount below zero": changed("amount", '"-1"'),
    "a long text": changed("payee", json.dumps("x" * 100_000)),
    "metadata that is none": GOOD[:-1] + ', "metadata": {"a": {"b": 1}}}',
    "metadata with a huge number": GOOD[:-1] + ', "metadata": {"a": 1e400}}',
    "shares that are none": GOOD[:-1] + ', "shares": [{"kind": "GIFT"}]}',
    "shares of too much": GOOD[:-1] + ', "shares": [{"kind": "FEE", "owner": "p", "percent": "101"}]}',
    "latin-1": GOOD.replace("worker-17", "é").encode("latin-1"),
    "UTF-16": GOOD.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD.encode(),
}


@pytest.fixture(autouse=True)
def _nothing_is_written(api: Api) -> Iterator[None]:
    """No refused request leaves anything."""
    yield
    with api.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM buffer.hold")) == 0
        assert connection.scalar(text("SELECT count(*) FROM buffer.api_request")) == 0


def require_problem(answer: Any, *statuses: int) -> dict[str, Any]:
    """Return the problem of an answer that must be one."""
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert set(problem) >= {"type", "title", "status", "detail"}
    assert problem["status"] == answer.status_code
    assert len(answer.headers["x-request-id"]) == 32
    assert not any(word in answer.text for word in ("Traceback", "SELECT", "psycopg", "buffer."))
    assert len(problem["detail"]) < 500
    return problem


@pytest.mark.parametrize("what", BODIES)
def test_broken_body_is_refused(api: Api, what: str) -> None:
    """With a problem that says what is wrong."""
    body = BODIES[what]

    refused = api.platform.send("/earnings", body if isinstance(body, bytes) else body.encode())

    require_problem(refused, 400, 422)


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"]
)
def test_body_of_another_type_is_refused(api: Api, kind: str) -> None:
    """Only JSON in UTF-8 is read."""
    require_problem(api.platform.send("/earnings", GOOD.encode(), Content_Type=kind), 415)


def test_compressed_body_is_refused(api: Api) -> None:
    """It could be much larger than it looks."""
    require_problem(api.platform.send("/earnings", GOOD.encode(), Content_Encoding="gzip"), 415)


def test_large_body_is_refused(api: Api) -> None:
    """By its length, or, if it is sent in chunks, as soon as it is too long."""
    megabyte = b" " * 1024 * 1024

    def chunks() -> Iterator[bytes]:
        yield from (megabyte, GOOD.encode())

    announced = api.platform.send("/earnings", megabyte + GOOD.encode())
    chunked = api.platform.send("/earnings", chunks())
    # A list of earnings may be larger.
    many = api.platform.send("/earnings/many", megabyte + b"{}")

    assert "more than 1048576 bytes" in require_problem(announced, 413)["detail"]
    assert "more than 1048576 bytes" in require_problem(chunked, 413)["detail"]
    require_problem(many, 422)
    require_problem(api.platform.send("/earnings/many", megabyte * 10 + b"{}"), 413)


@pytest.mark.parametrize(
    "path",
    [
        "/holds/0",
        "/holds/-1",
        "/holds/x",
        "/holds/9223372036854775808",
        "/holds/" + "9" * 5000,
        "/holds?limit=0",
        "/holds?limit=1001",
        "/holds?limit=x",
        "/holds?cursor=x",
        "/holds?cursor=%00",
        "/holds?ownr=worker-17",
        "/holds?state=GONE",
        "/holds?due_by=yesterday",
        "/holds?metadata=x",
        "/holds?owner=",
        "/holds?owner=a%00b",
        "/rules/a%00b",
        "/holds/1?x=1",
        "/wallet",
        "/wallet?owner=x",
        "/statement?owner=x&as_of=1",
        "/rules/standard/try?amount=1e5&currency=PHP",
        "/audit?hold_id=x",
    ],
)
def test_broken_path_or_query_is_refused(api: Api, path: str) -> None:
    """A misspelled filter too: it must not list everything."""
    require_problem(api.platform.get(path), 400, 422)


def test_write_with_a_query_is_refused(api: Api) -> None:
    """Such as ?dry_run=1, which is not there."""
    require_problem(api.platform.post("/earnings?dry_run=1", EARNING), 422)


def test_unknown_path_and_method_are_problems(api: Api) -> None:
    """As every error is."""
    assert require_problem(api.reader.get("/nowhere"), 404)["type"].endswith(":no-such-path")
    assert require_problem(api.reader.get("/holds/"), 404)
    refused = api.platform.post("/holds", {})
    require_problem(refused, 405)
    assert refused.headers["allow"] == "GET"


def test_request_id_is_taken_if_it_is_sound(api: Api) -> None:
    """Else one is made; it is in the answer."""
    taken = api.reader.get("/wallets", {"X-Request-Id": "web-17.a_b"})
    made = api.reader.get("/wallets", {"X-Request-Id": "a b\t<script>"})

    assert taken.headers["x-request-id"] == "web-17.a_b"
    assert len(made.headers["x-request-id"]) == 32


def test_wrong_lengths_do_not_end_the_server(api: Api) -> None:
    """What is no HTTP is refused by uvicorn, and the next request is served."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    for head in (
        b"Content-Length: -1",
        b"Content-Length: x",
        b"Content-Length: 9" + b"9" * 100,
        b"Transfer-Encoding: gzip",
        b"X: " + b"x" * 100_000,
    ):
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(b"POST /earnings HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
            assert client.recv(4096)[9:12] in {b"400", b"401", b"413", b"431"}
    assert api.reader.get("/wallets").status_code == 200
