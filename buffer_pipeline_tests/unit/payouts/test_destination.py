"""A destination is checked, versioned, and never shown whole."""

import logging
from typing import Any

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.errors import InvalidInput, NotFound
from buffer_pipeline.payouts import Destination, PayoutMethod, set_destination, show_destination
from buffer_pipeline.tables import payout_destination
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYEE, books
from buffer_pipeline_tests.support.payouts import HOLDER, IBAN, MASKED


def put(connection: Connection, **changes: Any) -> Destination:
    """Set the destination of PAYEE, with some arguments changed."""
    given = {
        "owner": PAYEE,
        "method": "IBAN",
        "account": IBAN,
        "holder_name": HOLDER,
        "by": ADMIN,
        "reason": "new account",
        "now": NOON,
    }
    return set_destination(connection, **{**given, **changes})


def test_newest_version_counts(connection: Connection) -> None:
    """The older ones stay in the books, with who has set them and why."""
    put(connection, account="GB29NWBK60161331926819")

    second = put(connection, reason="moved")

    assert (second.version, second.method, second.account) == (2, PayoutMethod.IBAN, MASKED)
    assert show_destination(connection, owner=PAYEE) == second
    rows = connection.execute(select(payout_destination).order_by("version")).mappings().all()
    assert [(row["version"], row["account"], row["reason"]) for row in rows] == [
        (1, "GB29NWBK60161331926819", "new account"),
        (2, IBAN, "moved"),
    ]


def test_iban_is_stored_without_spaces(connection: Connection) -> None:
    """However it was typed."""
    put(connection, account="de89 3704 0044 0532 0130 00")

    assert connection.scalar(select(payout_destination.c.account)) == IBAN


@pytest.mark.parametrize(
    ("account", "fault"),
    [
        ("DE89370400440532013001", "wrong check digits"),
        ("DE8937040044053201300", "wrong length"),
        ("ZZ89370400440532013000", "no such country"),
        ("DE8937040044053201300O", "wrong form"),
        ("DE89３70400440532013000", "wrong form"),
        ("", "wrong"),
        ("   ", "wrong"),
        ("DE89", "wrong"),
        ("x" * 1000, "wrong"),
        (None, "wrong form"),
        (7, "wrong form"),
    ],
)
def test_wrong_iban_is_refused_without_showing_it(connection: Connection, account: Any, fault: str) -> None:
    """The refusal says what is wrong, and has no part of the number."""
    before = books(connection)

    with pytest.raises(InvalidInput, match=fault) as refused:
        put(connection, account=account)

    assert refused.value.owner == PAYEE
    assert books(connection) == before
    if account and str(account).strip():
        assert str(account)[4:] not in str(refused.value) or not str(account)[4:]


@pytest.mark.parametrize(
    ("account", "shown"), [("acct_1MqPzLkdIwHu7ixZ", "****7ixZ"), ("tok-1", "****"), ("x" * 12, "****xxxx")]
)
def test_token_is_opaque(connection: Connection, account: str, shown: str) -> None:
    """Of a short one nothing is shown."""
    done = put(connection, method="TOKEN", account=account)

    assert (done.method, done.account) == (PayoutMethod.TOKEN, shown)
    assert connection.scalar(select(payout_destination.c.account)) == account


@pytest.mark.parametrize("account", ["", " acct-1", "acct\n1", "\x00", "x" * 201, None])
def test_wrong_token_is_refused_without_showing_it(connection: Connection, account: Any) -> None:
    """Its length, control characters and spaces are checked, and nothing else."""
    with pytest.raises(InvalidInput, match="not a token of 1 to 200 characters") as refused:
        put(connection, method="TOKEN", account=account)

    assert not account or account not in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [{"method": "CASH"}, {"by": ""}, {"reason": ""}, {"owner": ""}, {"now": NOON.replace(tzinfo=None)}],
)
def test_bad_input_is_refused(connection: Connection, changes: dict[str, Any]) -> None:
    """Nothing is written."""
    before = books(connection)

    with pytest.raises(InvalidInput):
        put(connection, **changes)

    assert books(connection) == before


def test_holder_name_is_part_of_a_version(connection: Connection) -> None:
    """As its holder writes it; a bank's file has it in plain letters."""
    put(connection)

    changed = put(connection, holder_name="Zoë Søn-Łuk", reason="married")

    assert changed.holder_name == "Zoë Søn-Łuk"
    assert show_destination(connection, owner=PAYEE).holder_name == "Zoë Søn-Łuk"
    names = connection.scalars(select(payout_destination.c.holder_name).order_by("version")).all()
    assert names == [HOLDER, "Zoë Søn-Łuk"]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (None, "an IBAN needs holder_name"),
        ("", "is empty"),
        (" shop", "is empty, too long, or has control characters or spaces around it"),
        ("shop\nnorth", "control characters"),
        ("x" * 201, "too long"),
        ("x" * 71, "has 71 characters; banks take 70"),
        ("ß" * 36, "has 72 characters"),
        ("a" + "\u0301" * 150, "banks take 70"),
        ("株式会社", "character 1 has no form"),
        ("shop *", "character 6 has no form"),
        ("- / -", "has no letter"),
        (7, "is empty"),
    ],
)
def test_wrong_holder_name_is_refused_without_showing_it(
    connection: Connection, name: Any, fault: str
) -> None:
    """A bank would pay back what it cannot compare. The refusal says what is wrong."""
    before = books(connection)

    with pytest.raises(InvalidInput, match=fault) as refused:
        put(connection, holder_name=name)

    assert refused.value.owner == PAYEE
    assert books(connection) == before
    assert not name or str(name) == "7" or str(name) not in str(refused.value)


def test_token_needs_no_holder_name(connection: Connection) -> None:
    """Its provider knows whose it is."""
    assert put(connection, method="TOKEN", account="acct_1MqPzLkdIwHu7ixZ", holder_name=None).version == 1


def test_owner_without_a_destination_is_not_found(connection: Connection) -> None:
    """By name."""
    with pytest.raises(NotFound, match="'worker-17': has no payout destination"):
        show_destination(connection, owner=PAYEE)


def test_account_is_in_no_repr_and_no_log(connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the answer, and not in what is logged."""
    caplog.set_level(logging.DEBUG)

    done = put(connection)

    for personal in (IBAN, HOLDER):
        assert personal not in repr(done)
        assert personal not in caplog.text


def test_a_failed_statement_does_not_show_the_account(connection: Connection) -> None:
    """SQLAlchemy's error would have the parameters."""
    connection.execute(text("REVOKE INSERT ON buffer.payout_destination FROM CURRENT_USER"))

    with pytest.raises(DBAPIError, match="permission denied") as failure:
        put(connection)

    assert IBAN not in str(failure.value)
    assert HOLDER not in str(failure.value)


def test_versions_are_never_changed(connection: Connection) -> None:
    """A trigger refuses it, whoever tries."""
    put(connection)

    for change in ("UPDATE {} SET destination_id = DEFAULT", "DELETE FROM {}"):
        with pytest.raises(DBAPIError, match=r"kept as they were written|denied"), connection.begin_nested():
            connection.execute(text(change.format("buffer.payout_destination")))
