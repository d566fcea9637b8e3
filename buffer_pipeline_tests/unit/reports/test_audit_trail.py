"""The audit trail: who did what, when and why, in one list."""

from datetime import datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.errors import InvalidInput, NotFound
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.reports.audit_trail import LIMIT_MAX, audit_trail
from buffer_pipeline.reschedule import reschedule_hold
from buffer_pipeline.wallet import deposit, open_balance, withdraw
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    JOB,
    NOON,
    PAYEE,
    PAYER,
    next_generation,
    place_hold,
)

HOUR: Final = timedelta(hours=1)


def at(hour: int) -> datetime:
    """Return the time this many hours after NOON."""
    return NOON + hour * HOUR


def verbs(connection: Connection, **filters: Any) -> list[str]:
    """Return the verbs of the trail, newest first."""
    return [line["verb"] for line in audit_trail(connection, **filters)]


def test_a_freeze_and_its_closing(connection: Connection) -> None:
    """Each has who, when and why, and the kind of freeze."""
    hold_id = place_hold(connection)
    freeze = freeze_hold(
        connection,
        hold_id=hold_id,
        kind=FreezeKind.RISK,
        by="risk-2",
        reason="stolen card",
        reference="case-12",
        now=at(1),
    )
    unfreeze_hold(connection, freeze_id=freeze.freeze_id, by="risk-3", reason="cleared", now=at(2))

    detail = {"job": JOB, "kind": "RISK", "freeze_id": freeze.freeze_id}
    of_hold = {"owner": PAYEE, "hold_id": hold_id}
    assert audit_trail(connection) == [
        {
            "at": at(2),
            "by": "risk-3",
            "verb": "UNFREEZE",
            **of_hold,
            "reason": "cleared",
            "detail": detail,
        },
        {
            "at": at(1),
            "by": "risk-2",
            "verb": "FREEZE",
            **of_hold,
            "reason": "stolen card",
            "detail": {**detail, "reference": "case-12"},
        },
    ]


@pytest.mark.parametrize(
    ("decide", "verb"),
    [
        (reject_backjob, "REJECT_BACKJOB"),
        (withdraw_backjob, "WITHDRAW_BACKJOB"),
        (approve_backjob, "APPROVE_BACKJOB"),
    ],
)
def test_a_backjob_and_its_decision(connection: Connection, decide: Any, verb: str) -> None:
    """One line for each hold. An approval has the refund of each."""
    holds = [place_hold(connection), place_hold(connection, payee="worker-18", amount="500.00")]
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="it leaks", reference="ask-1", now=at(1))
    decide(
        connection,
        backjob_id=backjob.backjob_id,
        by=ADMIN,
        reason="looked at",
        reference="decision-1",
        now=at(2),
    )

    decided, requested = audit_trail(connection)[:2], audit_trail(connection)[2:]

    assert [(line["verb"], line["by"], line["reason"]) for line in decided] == [
        (verb, ADMIN, "looked at")
    ] * 2
    assert [(line["verb"], line["by"], line["reason"]) for line in requested] == [
        ("REQUEST_BACKJOB", PAYER, "it leaks")
    ] * 2
    assert [line["hold_id"] for line in decided] == [line["hold_id"] for line in requested] == holds[::-1]
    assert [line["owner"] for line in decided] == ["worker-18", PAYEE]
    assert {line["detail"]["backjob_id"] for line in (*decided, *requested)} == {backjob.backjob_id}
    assert {line["detail"]["reference"] for line in decided} == {"decision-1"}
    assert {line["detail"]["reference"] for line in requested} == {"ask-1"}
    amounts = [(line["detail"].get("amount_minor"), line["detail"].get("currency")) for line in decided]
    refunded = verb == "APPROVE_BACKJOB"
    assert amounts == ([(50_000, "PHP"), (100_000, "PHP")] if refunded else [(None, None)] * 2)
    assert all(("transaction_id" in line["detail"]) is refunded for line in decided)


def test_an_early_release_and_not_a_scheduled_one(connection: Connection) -> None:
    """A scheduled release is no decision."""
    early, due = place_hold(connection), place_hold(connection, job="job-9")
    release_early(connection, hold_id=early, by=PAYER, reason="well done", now=at(1))
    release_matured(connection, now=DAY_7, batch_limit=10)

    (line,) = audit_trail(connection)

    assert due != early
    assert (line["at"], line["by"], line["verb"], line["hold_id"], line["reason"]) == (
        at(1),
        PAYER,
        "RELEASE_EARLY",
        early,
        "well done",
    )
    detail = line["detail"]
    assert (detail["amount_minor"], detail["currency"], detail["job"]) == (100_000, "PHP", JOB)
    assert detail.keys() == {"job", "batch_id", "transaction_id", "amount_minor", "currency"}


def test_a_refund_without_a_backjob(connection: Connection) -> None:
    """A partial refund closes no freeze; a whole one closes all."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    refund_hold(
        connection,
        hold_id=hold_id,
        by=ADMIN,
        reason="a part",
        reference="back-1",
        amount="400.00",
        now=at(1),
    )
    refund_hold(connection, hold_id=hold_id, by=ADMIN, reason="the rest", reference="back-2", now=at(2))

    lines = audit_trail(connection)

    assert [(line["verb"], line["reason"]) for line in lines] == [
        ("REFUND", "the rest"),
        ("UNFREEZE", "the rest"),
        ("REFUND", "a part"),
        ("FREEZE", "a look"),
    ]
    assert [line["detail"].get("amount_minor") for line in lines] == [60_000, None, 40_000, None]
    assert lines[0]["detail"]["reference"] == "back-2"
    assert {line["owner"] for line in lines} == {PAYEE}


def test_a_moved_date(connection: Connection) -> None:
    """The old and the new date, and whether as an admin."""
    hold_id = place_hold(connection)
    reschedule_hold(
        connection,
        hold_id=hold_id,
        to=DAY_7 + HOUR,
        by=ADMIN,
        as_admin=True,
        reason="abroad",
        reference="move-1",
        now=at(1),
    )

    assert audit_trail(connection) == [
        {
            "at": at(1),
            "by": ADMIN,
            "verb": "RESCHEDULE",
            "owner": PAYEE,
            "hold_id": hold_id,
            "reason": "abroad",
            "detail": {
                "job": JOB,
                "reference": "move-1",
                "from": DAY_7,
                "to": DAY_7 + HOUR,
                "as_admin": True,
            },
        }
    ]


def test_deposits_and_withdrawals_named_or_not(connection: Connection) -> None:
    """With who and why if given. An imported balance has neither."""
    money = {"owner": PAYEE, "amount": "9.00", "currency": "PHP"}
    open_balance(connection, **money, reference="opening", now=at(0))
    first = deposit(connection, **money, reference="in-1", now=at(1))
    second = deposit(connection, **money, reference="in-2", now=at(2), by=ADMIN, reason="goodwill")
    withdraw(connection, **money, reference="out-1", now=at(3), by=ADMIN)
    withdraw(connection, **money, reference="out-2", now=at(4))

    lines = audit_trail(connection)

    assert [(line["at"], line["verb"], line["by"], line["reason"]) for line in lines] == [
        (at(4), "WITHDRAW", None, None),
        (at(3), "WITHDRAW", ADMIN, None),
        (at(2), "DEPOSIT", ADMIN, "goodwill"),
        (at(1), "DEPOSIT", None, None),
    ]
    assert {(line["owner"], line["hold_id"]) for line in lines} == {(PAYEE, None)}
    assert [lines[index]["detail"] for index in (2, 3)] == [
        {
            "transaction_id": movement.transaction_id,
            "amount_minor": 900,
            "currency": "PHP",
            "reference": reference,
        }
        for movement, reference in ((second, "in-2"), (first, "in-1"))
    ]
    assert audit_trail(connection, by=ADMIN) == lines[1:3]
    assert audit_trail(connection, owner=PAYEE) == lines
    assert audit_trail(connection, owner=PAYEE, by=ADMIN) == lines[1:3]
    assert audit_trail(connection, owner=PAYER) == []


@pytest.fixture
def much(connection: Connection) -> Connection:
    """Books with actions of several people on the money of two payees."""
    first = place_hold(connection)
    second = place_hold(connection, payee="worker-18", job="job-9", payer="client-4")
    freeze = freeze_hold(connection, hold_id=first, kind=FreezeKind.RISK, by="risk-2", reason="hm", now=at(1))
    reschedule_hold(connection, hold_id=second, to=at(99), by="client-4", reason="good", now=at(2))
    unfreeze_hold(connection, freeze_id=freeze.freeze_id, by=ADMIN, reason="fine", now=at(3))
    deposit(connection, owner="worker-18", amount="1", currency="PHP", reference="in-1", by=ADMIN, now=at(4))
    release_early(connection, hold_id=first, by=PAYER, reason="well done", now=at(5))
    next_generation(connection)
    third = place_hold(connection, job="job-10", held_at=at(6))
    backjob = request_backjob(connection, job="job-10", by=PAYER, reason="it leaks", now=at(7))
    approve_backjob(connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="it does", now=at(8))
    withdraw(connection, owner=PAYEE, amount="1", currency="PHP", reference="out-1", now=at(9))
    assert (first, second, third) == tuple(sorted((first, second, third)))
    return connection


def test_each_filter(much: Connection) -> None:
    """By owner, person, hold and time, alone and together."""
    everything = [
        ("WITHDRAW", PAYEE),
        ("APPROVE_BACKJOB", PAYEE),
        ("REQUEST_BACKJOB", PAYEE),
        ("RELEASE_EARLY", PAYEE),
        ("DEPOSIT", "worker-18"),
        ("UNFREEZE", PAYEE),
        ("RESCHEDULE", "worker-18"),
        ("FREEZE", PAYEE),
    ]
    lines = audit_trail(much)
    (first, second, third) = sorted({line["hold_id"] for line in lines} - {None})

    assert [(line["verb"], line["owner"]) for line in lines] == everything
    for owner in (PAYEE, "worker-18"):
        assert audit_trail(much, owner=owner) == [line for line in lines if line["owner"] == owner]
    for by in (ADMIN, PAYER, "client-4", "risk-2", "nobody"):
        of_person = [line for line in lines if line["by"] == by]
        assert audit_trail(much, by=by) == of_person
        assert audit_trail(much, by=by, since=at(5)) == [line for line in of_person if line["at"] >= at(5)]
        assert audit_trail(much, by=by, owner=PAYEE) == [line for line in of_person if line["owner"] == PAYEE]
        assert audit_trail(much, by=by, hold_id=first) == [
            line for line in of_person if line["hold_id"] == first
        ]
    for hold_id in (first, second, third):
        of_hold = [line for line in lines if line["hold_id"] == hold_id]
        assert audit_trail(much, hold_id=hold_id) == of_hold
        assert audit_trail(much, hold_id=hold_id, owner=of_hold[0]["owner"]) == of_hold
        assert audit_trail(much, hold_id=hold_id, owner="client-9") == []
        assert audit_trail(much, hold_id=hold_id, since=at(3)) == [
            line for line in of_hold if line["at"] >= at(3)
        ]
    for hour in range(11):
        assert audit_trail(much, since=at(hour)) == [line for line in lines if line["at"] >= at(hour)]
    for limit in range(1, 9):
        assert audit_trail(much, limit=limit) == lines[:limit]
        assert audit_trail(much, owner=PAYEE, limit=limit) == audit_trail(much, owner=PAYEE)[:limit]
    assert audit_trail(much, hold_id=404) == []
    assert audit_trail(much, owner="nobody") == []


@pytest.mark.parametrize("limit", [0, -1, LIMIT_MAX + 1])
def test_a_limit_out_of_range_is_refused(connection: Connection, limit: int) -> None:
    """By name."""
    with pytest.raises(InvalidInput, match=f"^limit {limit}: must be from 1 to 1000000$"):
        audit_trail(connection, limit=limit)


def test_an_id_that_no_hold_can_have_is_not_found(connection: Connection) -> None:
    """As in every command. An unknown id has no lines."""
    with pytest.raises(NotFound, match="hold 0: does not exist"):
        audit_trail(connection, hold_id=0)
