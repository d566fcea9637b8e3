"""Keys: shown once, stored as a digest, expiring, revoked; and checked before a body is read."""

import json
import socket
from datetime import timedelta

import pytest
from sqlalchemy import text

from buffer_pipeline.api import gate
from buffer_pipeline.api.keys import KeyRole, make_key, revoke_key
from buffer_pipeline.database import database_clock
from buffer_pipeline.errors import InvalidInput, NotFound, ReferenceConflict
from buffer_pipeline_tests.support.api import EARNING, Api, Caller
from buffer_pipeline_tests.support.commands import Run


def key_for(api: Api, name: str) -> Caller:
    """Return a caller with a key of its own."""
    with api.engine.begin() as connection:
        token = make_key(connection, name=name, role=KeyRole.PLATFORM, now=database_clock(connection))
    return Caller(api.platform.http, token)


def test_key_is_stored_as_a_digest(api: Api) -> None:
    """Nothing in the books has the key."""
    caller = key_for(api, "digest")

    with api.engine.connect() as connection:
        stored = connection.execute(text("SELECT api_key::text FROM buffer.api_key")).scalars().all()

    assert caller.token.startswith("bp_")
    assert len(caller.token) == 46
    assert not any(caller.token in row or caller.token[3:] in row for row in stored)


def test_revoked_key_is_refused_at_once(api: Api) -> None:
    """Also one that the server has just found, because the transaction checks it again."""
    caller = key_for(api, "revoked")
    assert caller.get("/wallets").status_code == 200

    with api.engine.begin() as connection:
        revoke_key(connection, name="revoked", now=database_clock(connection))

    assert caller.get("/wallets").status_code == 401
    refused = caller.post("/earnings", EARNING)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")


def test_expired_key_is_refused(api: Api) -> None:
    """From its time on."""
    caller = key_for(api, "expired")
    with api.engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE buffer.api_key SET made_at = now() - interval '2 days',"
                " expires_at = now() - interval '1 day' WHERE name = 'expired'"
            )
        )

    assert caller.get("/wallets").status_code == 401


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer bp_" + "x" * 43,
        "Bearer bp_x",
        "Basic dTpw",
        "Bearer ' OR 1=1",
        "Bearer \xff\xff",
    ],
)
def test_request_without_a_key_is_refused(api: Api, header: str | None) -> None:
    """Whatever stands in the header, and also for a path that does not exist."""
    headers = [] if header is None else [(b"Authorization", header.encode("latin-1"))]
    for path in ("/wallets", "/nowhere"):
        refused = api.reader.http.get(path, headers=headers)

        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert refused.json()["type"] == "urn:buffer-pipeline:problem:unauthorized"


def test_body_of_a_request_without_a_key_is_not_read(api: Api) -> None:
    """The answer comes although not a byte of the announced body was sent."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(
            b"POST /earnings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000000\r\n\r\n"
        )
        answer = client.recv(4096)

    assert answer.startswith(b"HTTP/1.1 401 ")


def test_known_keys_are_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server forgets the first one and finds it again in the books."""
    monkeypatch.setattr(gate, "_KEYS_KNOWN_MAX", 1)
    callers = [key_for(api, f"bounded-{number}") for number in range(3)]

    answers = [caller.get("/wallets").status_code for caller in (*callers, *callers)]

    assert answers == [200] * 6


def test_keys_by_command(run: Run) -> None:
    """`api-key create` shows the key once; `list` shows all but the key; `revoke` says since when."""
    made = run(
        "--json",
        "api-key",
        "create",
        "--name",
        "shop",
        "--role",
        "platform",
        "--expires",
        "2999-01-01T00:00Z",
    )
    listed = run("api-key", "list")
    revoked = run("--json", "api-key", "revoke", "shop")
    again = run("--json", "api-key", "revoke", "shop")
    taken = run("api-key", "create", "--name", "shop", "--role", "reader")

    key = json.loads(made.out)["key"]
    assert key not in listed.out
    assert "shop" in listed.out
    assert revoked.json == again.json
    assert (taken.code, taken.err) == (
        1,
        "Error: key 'shop': there is one of that name; names are not used again\n",
    ) or "names are not used again" in taken.err
    assert run("api-key", "revoke", "gone").code == 1
    assert run("api-key", "create", "--name", "x", "--role", "root").code == 2


def test_key_that_cannot_be(api: Api) -> None:
    """A name of two lines, an expiry in the past, a name twice, a key that is not there."""
    with api.engine.connect() as connection:
        now = database_clock(connection)
        for name, expires in (("two\nlines", None), (" x", None), ("", None), ("x" * 101, None), ("x", now)):
            with pytest.raises(InvalidInput):
                make_key(connection, name=name, role=KeyRole.READER, now=now, expires_at=expires)
        make_key(connection, name="twice", role=KeyRole.READER, now=now, expires_at=now + timedelta(days=1))
        with pytest.raises(ReferenceConflict, match="'twice'"):
            make_key(connection, name="twice", role=KeyRole.READER, now=now)
        with pytest.raises(NotFound, match="'gone'"):
            revoke_key(connection, name="gone", now=now)
        connection.rollback()
