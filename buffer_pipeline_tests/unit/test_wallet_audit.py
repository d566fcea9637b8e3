"""A deposit or withdrawal may have a person and a reason."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.errors import InvalidInput, ReferenceConflict
from buffer_pipeline.tables import audit_line
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYER, books

MONEY: Final[dict[str, Any]] = {"owner": PAYER, "amount": "9.00", "currency": "PHP", "now": NOON}
SAID: Final[dict[str, Any]] = {"by": ADMIN, "reason": "goodwill"}


def test_who_and_why_are_a_line_of_the_audit_trail(connection: Connection) -> None:
    """One line for each movement with a person."""
    into = deposit(connection, **MONEY, **SAID, reference="in-1")
    out = withdraw(connection, **MONEY, by=ADMIN, reference="out-1")
    deposit(connection, **MONEY, reference="in-2")

    rows = connection.execute(select(audit_line).order_by(audit_line.c.audit_id)).mappings().all()

    assert [(row["verb"], row["transaction_id"], row["reason"]) for row in rows] == [
        ("DEPOSIT", into.transaction_id, "goodwill"),
        ("WITHDRAW", out.transaction_id, None),
    ]
    assert {(row["by"], row["owner"], row["at"], row["hold_id"]) for row in rows} == {
        (ADMIN, PAYER, NOON, None)
    }
    assert reconcile(connection) == []


@pytest.mark.parametrize(
    ("first", "again"), [(SAID, SAID), (SAID, {}), ({}, SAID), ({"by": ADMIN}, {"by": ADMIN})]
)
def test_replay_compares_the_person_only_if_both_calls_have_one(
    connection: Connection, first: dict[str, Any], again: dict[str, Any]
) -> None:
    """Nothing is written."""
    done = deposit(connection, **MONEY, **first, reference="in-1")
    before = books(connection)

    replay = deposit(connection, **MONEY, **again, reference="in-1")

    assert (replay.transaction_id, replay.replayed) == (done.transaction_id, True)
    assert books(connection) == before


@pytest.mark.parametrize(
    "again", [{"by": "admin-2", "reason": "goodwill"}, {"by": ADMIN, "reason": "another"}, {"by": ADMIN}]
)
def test_replay_with_another_person_or_reason_is_refused(
    connection: Connection, again: dict[str, Any]
) -> None:
    """It is another movement."""
    done = deposit(connection, **MONEY, **SAID, reference="in-1")

    with pytest.raises(ReferenceConflict) as refusal:
        deposit(connection, **MONEY, **again, reference="in-1")

    assert str(refusal.value) == (
        f"reference 'in-1': already used for transaction {done.transaction_id}, a DEPOSIT of 9.00 PHP"
        f" for '{PAYER}', by '{ADMIN}'"
    )


@pytest.mark.parametrize("verb", [deposit, withdraw])
@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"reason": "goodwill"}, "^reason: needs `by`, who gives it$"),
        ({"by": ""}, "^by: must not be empty$"),
        ({"by": ADMIN, "reason": ""}, "^reason: must not be empty$"),
        ({"by": "a\x00b"}, "^by .*: contains a control character$"),
    ],
)
def test_invalid_person_or_reason_is_refused(
    connection: Connection, verb: Any, output: dict[str, Any], words: str
) -> None:
    """By name, and nothing is written."""
    before = books(connection)

    with pytest.raises(InvalidInput, match=words):
        verb(connection, **MONEY, **output, reference="in-1")

    assert books(connection) == before


def test_call_without_a_person_may_be_ahead_of_the_clock(connection: Connection) -> None:
    """Only calls with a person are limited to a day; `test_clocks` tests that refusal."""
    later = {**MONEY, "now": datetime.now(UTC) + timedelta(days=400)}

    assert not deposit(connection, **later, reference="in-1").replayed
