"""Contacts: an owner's addresses, language and time zone."""

from datetime import datetime
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.notifications.contact import Contact, change_contact, find_contacts, set_contact
from buffer_pipeline_tests.support.builders import NOON, PAYEE, PAYER, all_at_once


def test_contact_is_found(connection: Connection) -> None:
    """For owners that have one."""
    contact = set_contact(
        connection, owner=PAYEE, locale="fil-PH", time_zone="Asia/Manila", email="w17@example.com", now=NOON
    )

    found = find_contacts(connection, [PAYEE, PAYER])

    assert contact == Contact(owner=PAYEE, locale="fil_PH", time_zone="Asia/Manila", email="w17@example.com")
    assert found == {PAYEE: contact}


def test_a_contact_is_set_whole(connection: Connection) -> None:
    """A value that the second call leaves out is removed. The same call again changes nothing."""
    set_contact(connection, owner=PAYEE, locale="en_PH", email="w17@example.com", now=NOON)

    for _ in range(2):
        set_contact(connection, owner=PAYEE, time_zone="Asia/Tokyo", now=NOON)

    assert find_contacts(connection, [PAYEE])[PAYEE] == Contact(
        owner=PAYEE, locale=None, time_zone="Asia/Tokyo", email=None
    )


def test_concurrent_settings_of_a_contact_both_succeed(engine: Engine) -> None:
    """The later one is stored completely."""

    def by(email: str) -> Any:
        return lambda connection: set_contact(connection, owner=PAYEE, email=email, now=NOON)

    both = all_at_once(engine, by("a@example.com"), by("b@example.com"))

    with engine.begin() as connection:
        assert find_contacts(connection, [PAYEE])[PAYEE] in both


def test_concurrent_changes_of_different_parts_are_both_kept(engine: Engine) -> None:
    """Values that neither names stay."""
    with engine.begin() as connection:
        set_contact(connection, owner=PAYEE, time_zone="Asia/Manila", now=NOON)

    def by(**changes: str) -> Any:
        return lambda connection: change_contact(connection, owner=PAYEE, changes=changes, now=NOON)

    all_at_once(engine, by(email="a@example.com"), by(locale="fil_PH"))

    with engine.begin() as connection:
        assert find_contacts(connection, [PAYEE])[PAYEE] == Contact(
            owner=PAYEE, locale="fil_PH", time_zone="Asia/Manila", email="a@example.com"
        )


def test_contacts_work_on_a_psycopg_connection(database_url: str) -> None:
    """In a transaction of the platform."""
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
def test_invalid_locale_zone_or_address_is_refused(
    connection: Connection, changes: dict[str, Any], named: str
) -> None:
    """By name, and nothing is written."""
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
def test_usual_addresses_are_accepted(connection: Connection, email: str) -> None:
    """Tags, apostrophes, deep domains and ASCII forms of international ones."""
    assert set_contact(connection, owner=PAYEE, email=email, now=NOON).email == email
