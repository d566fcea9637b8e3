"""Contacts: how an owner is reached and spoken to."""

from datetime import datetime
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine

from buffer_pipeline.contact import Contact, change_contact, find_contacts, set_contact
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline_tests.builders import PAYEE, PAYER, all_at_once
from buffer_pipeline_tests.conftest import NOON


def test_a_contact_is_found_as_it_was_set(connection: Connection) -> None:
    """What was set is found, for those owners that have one."""
    contact = set_contact(
        connection, owner=PAYEE, locale="fil-PH", time_zone="Asia/Manila", email="w17@example.com", now=NOON
    )

    found = find_contacts(connection, [PAYEE, PAYER])

    assert contact == Contact(owner=PAYEE, locale="fil_PH", time_zone="Asia/Manila", email="w17@example.com")
    assert found == {PAYEE: contact}


def test_a_contact_is_set_whole(connection: Connection) -> None:
    """What a second setting leaves out is not known any more; the same again changes nothing."""
    set_contact(connection, owner=PAYEE, locale="en_PH", email="w17@example.com", now=NOON)

    for _ in range(2):
        set_contact(connection, owner=PAYEE, time_zone="Asia/Tokyo", now=NOON)

    assert find_contacts(connection, [PAYEE])[PAYEE] == Contact(
        owner=PAYEE, locale=None, time_zone="Asia/Tokyo", email=None
    )


def test_two_who_set_one_contact_at_once_both_succeed(engine: Engine) -> None:
    """The later of the two stands, whole."""

    def by(email: str) -> Any:
        return lambda connection: set_contact(connection, owner=PAYEE, email=email, now=NOON)

    both = all_at_once(engine, by("a@example.com"), by("b@example.com"))

    with engine.begin() as connection:
        assert find_contacts(connection, [PAYEE])[PAYEE] in both


def test_two_who_change_different_parts_at_once_both_stand(engine: Engine) -> None:
    """Neither writes over what the other has changed, and what neither names stays."""
    with engine.begin() as connection:
        set_contact(connection, owner=PAYEE, time_zone="Asia/Manila", now=NOON)

    def by(**changes: str) -> Any:
        return lambda connection: change_contact(connection, owner=PAYEE, changes=changes, now=NOON)

    all_at_once(engine, by(email="a@example.com"), by(locale="fil_PH"))

    with engine.begin() as connection:
        assert find_contacts(connection, [PAYEE])[PAYEE] == Contact(
            owner=PAYEE, locale="fil_PH", time_zone="Asia/Manila", email="a@example.com"
        )


def test_a_platforms_own_connection_will_do(database_url: str) -> None:
    """Within a psycopg transaction of the platform's the verbs work as they do by SQLAlchemy."""
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        set_contact(connection, owner=PAYEE, email="w17@example.com", now=NOON)

        assert find_contacts(connection, [PAYEE])[PAYEE].email == "w17@example.com"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"locale": "xx"}, "locale"),
        ({"locale": ""}, "locale"),
        ({"locale": "../../etc/passwd"}, "locale"),
        ({"time_zone": "Mars/Base"}, "time_zone"),
        ({"time_zone": "../etc/passwd"}, "time_zone"),
        ({"time_zone": "/etc/localtime"}, "time_zone"),
        ({"email": "w17"}, "email"),
        ({"email": "a@b@example.com"}, "email"),
        ({"email": "a b@example.com"}, "email"),
        ({"email": "w17@example.com\r\nBcc: all@example.com"}, "email"),
        ({"email": "w17@example.com\n"}, "email"),
        ({"email": "W <w17@example.com>"}, "email"),
        ({"email": "w17@example.com,w18@example.com"}, "email"),
        ({"email": "wörker@example.com"}, "email"),
        ({"email": f"{'w' * 65}@example.com"}, "email"),
        ({"email": f"w@{'a.' * 130}com"}, "email"),
        ({"email": ".w@example.com"}, "email"),
        ({"email": "w@-example.com"}, "email"),
        ({"email": "w@example..com"}, "email"),
        ({"email": "w@[127.0.0.1]"}, "email"),
        ({"owner": ""}, "owner"),
        ({"owner": "worker\n17"}, "owner"),
        ({"now": datetime(2026, 3, 2, 12)}, "now"),  # noqa: DTZ001 - the naive time is the case
    ],
)
def test_what_cannot_be_used_is_refused(connection: Connection, changes: dict[str, Any], named: str) -> None:
    """A locale, zone or address that nothing can be done with is refused by name, and nothing is written."""
    contact = {"owner": PAYEE, "now": NOON, **changes}

    with pytest.raises(InvalidInput, match=f"^{named}"):
        set_contact(connection, **contact)

    assert find_contacts(connection, [PAYEE]) == {}


@pytest.mark.parametrize(
    "email",
    [
        "w@example.com",
        "first.last+tag@sub.example.co",
        "o'neil@example.com",
        "w@xn--bcher-kva.example",
        "w@h",
    ],
)
def test_usual_addresses_are_taken(connection: Connection, email: str) -> None:
    """Tags, apostrophes, deep domains and ASCII forms of international ones are addresses."""
    assert set_contact(connection, owner=PAYEE, email=email, now=NOON).email == email
