"""Cursors: only the one that a list returned is accepted, for that list, its filters and its order."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.inputs import ID_MAX
from buffer_pipeline.reads import list_backjobs, list_debts, list_holds, list_payouts, list_wallets, statement
from buffer_pipeline.reads.page import _digest
from buffer_pipeline_tests.support.builders import PAYEE, PAYER, place_hold


@pytest.fixture
def cursor(connection: Connection) -> str:
    """The cursor of the second page of all holds of the payee."""
    for _ in range(3):
        place_hold(connection)
    found = list_holds(connection, owner=PAYEE, limit=2).next_cursor
    assert found is not None
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda cursor: cursor[:-1],
        lambda cursor: cursor + "A",
        lambda cursor: cursor + "=",
        lambda cursor: "A" + cursor[1:] if cursor[0] != "A" else "B" + cursor[1:],
        lambda cursor: cursor.swapcase(),
        lambda _: "",
        lambda _: "not-a-cursor",
        lambda _: "ü",
        lambda cursor: cursor * 100,
        lambda cursor: urlsafe_b64encode(
            urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).replace(b"]", b" ]")
        ).decode(),
    ],
)
def test_a_tampered_cursor_is_refused(
    connection: Connection, cursor: str, change: Callable[[str], str]
) -> None:
    """A changed, cut or lengthened cursor, and any other text."""
    with pytest.raises(InvalidInput, match="cursor: not valid"):
        list_holds(connection, owner=PAYEE, limit=2, cursor=change(cursor))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{",
        b"{}",
        b"null",
        b"7",
        b"\xff",
        b"[" * 1_000,
        b'["list_holds",[],1]',
        b'["list_holds",{}]',
        b'["list_holds",{},1,2]',
        b"[7,{},1]",
        b"[[],{},1]",
        b'["list_holds",{},"1"]',
        b'["list_holds",{},null]',
        b'["list_holds",{},true]',
        b'["list_holds",{},1.0]',
        b'["list_holds",{},NaN]',
        b'["list_holds",{},-1]',
        b'["list_holds",{},9223372036854775808]',
        b'["list_holds",{},' + b"9" * 1_400 + b"]",
    ],
)
def test_a_forged_cursor_is_refused(connection: Connection, payload: bytes) -> None:
    """With a right checksum, which anybody can make: whatever is not a name, digests and an id."""
    forged = urlsafe_b64encode(_digest(payload) + payload).decode().rstrip("=")

    with pytest.raises(InvalidInput, match="cursor: not valid"):
        list_holds(connection, cursor=forged)


@pytest.mark.parametrize("digests", [{"owner": 7}, {"owner": None, "x": []}, {"oldest_first": "00"}])
def test_forged_digests_are_those_of_other_filters(connection: Connection, digests: object) -> None:
    """They match no filter."""
    payload = json.dumps(["list_holds", digests, 1]).encode()
    forged = urlsafe_b64encode(_digest(payload) + payload).decode().rstrip("=")

    with pytest.raises(InvalidInput, match="cursor: was made with another"):
        list_holds(connection, cursor=forged)


@pytest.mark.parametrize("key", [0, ID_MAX])
def test_a_forged_key_moves_the_page_only(connection: Connection, key: int) -> None:
    """The smallest and the largest id are read like any other."""
    hold_id = place_hold(connection)
    payload = json.dumps(["list_holds", {}, key]).encode()
    forged = urlsafe_b64encode(_digest(payload) + payload).decode().rstrip("=")

    found = list_holds(connection, cursor=forged).items

    assert [hold.hold_id for hold in found] == ([hold_id] if key else [])


def test_a_cursor_is_of_one_list(connection: Connection, cursor: str) -> None:
    """Another list refuses it and names both."""
    for name, listed in (
        ("list_wallets", list_wallets),
        ("list_backjobs", list_backjobs),
        ("list_debts", list_debts),
        ("list_payouts", list_payouts),
    ):
        with pytest.raises(InvalidInput, match=f"cursor: belongs to list_holds, not to {name}"):
            listed(connection, cursor=cursor)
    with pytest.raises(InvalidInput, match="cursor: belongs to list_holds, not to statement"):
        statement(connection, owner=PAYEE, cursor=cursor)


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        ({"owner": PAYER}, "owner"),
        ({"owner": PAYEE, "role": "PAYER"}, "role"),
        ({"owner": PAYEE, "state": "FROZEN"}, "state"),
        ({"owner": PAYEE, "metadata": {"order": "1"}}, "metadata"),
        ({"owner": PAYEE, "oldest_first": True}, "oldest_first"),
        ({}, "owner"),
    ],
)
def test_a_cursor_is_of_its_filters(
    connection: Connection, cursor: str, filters: dict[str, object], named: str
) -> None:
    """Another filter or another order is refused, and the refusal names it."""
    with pytest.raises(InvalidInput, match=f"cursor: was made with another {named}"):
        list_holds(connection, limit=2, cursor=cursor, **filters)  # type: ignore[arg-type]


def test_a_cursor_keeps_no_filter_in_plain_text(cursor: str) -> None:
    """It has the name of the list, digests and a position, so it can be shown in a link."""
    payload = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[8:]

    name, digests, key = json.loads(payload)

    assert name == "list_holds"
    assert set(digests) == {"owner", "role"}
    assert PAYEE.encode() not in payload
    assert isinstance(key, int)


@given(text=st.text(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_no_text_is_an_accident(connection: Connection, text: str) -> None:
    """Any text is refused as InvalidInput, never with another error."""
    with pytest.raises(InvalidInput):
        list_holds(connection, cursor=text)
