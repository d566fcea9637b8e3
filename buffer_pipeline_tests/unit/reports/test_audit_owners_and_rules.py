"""The audit trail of owners and rules: owners' freezes, versions of rules, and assignments."""

from datetime import datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection

from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.reports.audit_trail import audit_trail
from buffer_pipeline.rules import assign_rule, retire_rule, unassign_rule
from buffer_pipeline_tests.support.builders import ADMIN, JOB, NOON, PAYEE, PAYER, place_hold
from buffer_pipeline_tests.support.owner_freezes import freeze, unfreeze
from buffer_pipeline_tests.support.rules import FEE, SELLER, WHO, add, assign, retire, unassign

HOUR: Final = timedelta(hours=1)
WHY: Final[dict[str, Any]] = {"reason": "terms of May"}


def at(hour: int) -> datetime:
    """Return the time this many hours after NOON."""
    return NOON + hour * HOUR


def test_an_owners_freeze_is_one_line(connection: Connection) -> None:
    """It has the number of holds, which have no lines of their own. So has its closing."""
    for number in range(3):
        place_hold(connection, job=f"job-{number}")
    opened = freeze(connection, by="risk-2", reason="account stolen", reference="case-12", now=at(1))
    unfreeze(connection, by="risk-3", reason="cleared", reference="case-12-closed", now=at(2))

    lines = audit_trail(connection)

    of_owner = {"owner": PAYEE, "hold_id": None}
    detail = {"kind": "ADMIN", "owner_freeze_id": opened.owner_freeze_id, "holds": 3}
    assert lines == [
        {
            "at": at(2),
            "by": "risk-3",
            "verb": "UNFREEZE_OWNER",
            **of_owner,
            "reason": "cleared",
            "detail": {**detail, "reference": "case-12-closed"},
        },
        {
            "at": at(1),
            "by": "risk-2",
            "verb": "FREEZE_OWNER",
            **of_owner,
            "reason": "account stolen",
            "detail": {**detail, "reference": "case-12"},
        },
    ]
    assert audit_trail(connection, owner=PAYEE) == lines


def test_hold_shows_the_freeze_of_its_owner(connection: Connection) -> None:
    """Also if the hold was added later. The line names the owner's freeze; a refund ends it."""
    first = place_hold(connection)
    opened = freeze(connection, now=at(1))
    late = place_hold(connection, job="job-9", held_at=at(2))
    refund_hold(connection, hold_id=late, by=ADMIN, reason="a fraud", reference="back-1", now=at(3))

    of_first = audit_trail(connection, hold_id=first)
    of_late = audit_trail(connection, hold_id=late)
    of_owner = audit_trail(connection, owner=PAYEE)

    assert [(line["verb"], line["at"]) for line in of_first] == [("FREEZE", at(1))]
    assert [(line["verb"], line["at"]) for line in of_late] == [
        ("REFUND", at(3)),
        ("UNFREEZE", at(3)),
        ("FREEZE", at(2)),
    ]
    for line in (*of_first, of_late[1], of_late[2]):
        assert line["detail"]["owner_freeze_id"] == opened.owner_freeze_id
    assert [line["verb"] for line in of_owner] == ["REFUND", "FREEZE_OWNER"]
    assert audit_trail(connection, owner=PAYEE, hold_id=first) == of_first


def test_a_rule_and_its_retirement(connection: Connection) -> None:
    """With the version; a rule has no owner. A retirement may lack caller and reason."""
    add(connection, **FEE)
    add(connection, by="finance-1", reason="dearer", now=at(1), **FEE)
    retire_rule(connection, name=SELLER, now=at(2))

    lines = audit_trail(connection)

    of_rule = {"owner": None, "hold_id": None}
    second = {"detail": {"rule": SELLER, "version": 2}}
    assert lines == [
        {"at": at(2), "by": None, "verb": "RETIRE_RULE", **of_rule, "reason": None, **second},
        {"at": at(1), "by": "finance-1", "verb": "ADD_RULE", **of_rule, "reason": "dearer", **second},
        {
            "at": NOON,
            "by": ADMIN,
            "verb": "ADD_RULE",
            **of_rule,
            "reason": WHO["reason"],
            "detail": {"rule": SELLER, "version": 1},
        },
    ]


def test_an_assignment_and_its_end(connection: Connection) -> None:
    """With the rule. The end names the previous rule."""
    add(connection, **FEE)
    add(connection, name="another", **FEE)
    assign_rule(connection, owner=PAYEE, name=SELLER, by="risk-2", reason="new", now=at(1))
    assign_rule(connection, owner=PAYEE, name="another", now=at(2))
    unassign_rule(connection, owner=PAYEE, by="risk-3", reason="proven", now=at(3))

    lines = audit_trail(connection, owner=PAYEE)

    assert [(line["at"], line["verb"], line["by"], line["reason"], line["detail"]) for line in lines] == [
        (at(3), "UNASSIGN_RULE", "risk-3", "proven", {"rule": "another"}),
        (at(2), "ASSIGN_RULE", None, None, {"rule": "another"}),
        (at(1), "ASSIGN_RULE", "risk-2", "new", {"rule": SELLER}),
    ]
    assert {(line["owner"], line["hold_id"]) for line in lines} == {(PAYEE, None)}


@pytest.fixture
def much(connection: Connection) -> Connection:
    """Books with decisions of several people on holds, two owners and two rules."""
    hold_id = place_hold(connection)
    place_hold(connection, payee="worker-18", job="job-9", payer="client-4")
    add(connection, by="finance-1", now=at(1), **FEE)
    add(connection, name="another", by="finance-1", now=at(1), **FEE)
    freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, by="risk-2", reason="hm", now=at(2))
    freeze(connection, by="risk-2", now=at(2))
    assign_rule(connection, owner=PAYEE, name=SELLER, by="risk-2", now=at(3), **WHY)
    assign_rule(connection, owner="worker-18", name=SELLER, by="risk-2", now=at(3), **WHY)
    unfreeze(connection, by="admin-1", now=at(4))
    freeze(connection, owner="worker-18", by="risk-3", now=at(4))
    unassign_rule(connection, owner=PAYEE, by="admin-1", now=at(5), **WHY)
    retire_rule(connection, name="another", by="finance-1", now=at(6), **WHY)
    return connection


def test_each_filter(much: Connection) -> None:
    """By owner, person and time, alone and together; holds included, newest first."""
    lines = audit_trail(much)

    assert [(line["verb"], line["owner"], line["by"]) for line in lines] == [
        ("RETIRE_RULE", None, "finance-1"),
        ("UNASSIGN_RULE", PAYEE, "admin-1"),
        ("FREEZE_OWNER", "worker-18", "risk-3"),
        ("UNFREEZE_OWNER", PAYEE, "admin-1"),
        ("ASSIGN_RULE", PAYEE, "risk-2"),
        ("ASSIGN_RULE", "worker-18", "risk-2"),
        ("FREEZE_OWNER", PAYEE, "risk-2"),
        ("FREEZE", PAYEE, "risk-2"),
        ("ADD_RULE", None, "finance-1"),
        ("ADD_RULE", None, "finance-1"),
    ]
    assert [line["detail"]["rule"] for line in lines[-2:]] == ["another", SELLER]
    for by in ("finance-1", "risk-2", "risk-3", "admin-1", "nobody"):
        of_person = [line for line in lines if line["by"] == by]
        assert audit_trail(much, by=by) == of_person
        assert audit_trail(much, by=by, owner=PAYEE) == [line for line in of_person if line["owner"] == PAYEE]
        assert audit_trail(much, by=by, since=at(4)) == [line for line in of_person if line["at"] >= at(4)]
    for owner in (PAYEE, "worker-18", PAYER):
        assert audit_trail(much, owner=owner) == [line for line in lines if line["owner"] == owner]
    for hour in range(8):
        assert audit_trail(much, since=at(hour)) == [line for line in lines if line["at"] >= at(hour)]
    for limit in range(1, 11):
        assert audit_trail(much, limit=limit) == lines[:limit]
        assert audit_trail(much, owner=PAYEE, limit=limit) == audit_trail(much, owner=PAYEE)[:limit]


def test_decisions_of_one_moment_keep_their_order(connection: Connection) -> None:
    """The last decision comes first, with any limit, although all have the same time."""
    place_hold(connection)
    for fee in (11, 12):
        add(connection, **FEE | {"fee_percent": fee})
    retire(connection)
    add(connection, **FEE)
    for _ in range(2):
        assign(connection)
        unassign(connection)
    freeze(connection)
    unfreeze(connection, now=NOON)

    lines = audit_trail(connection)

    of_rules = [line for line in lines if line["verb"].endswith("_RULE")]
    assert [(line["verb"], line["detail"].get("version")) for line in of_rules if line["owner"] is None] == [
        ("ADD_RULE", 3),
        ("RETIRE_RULE", 2),
        ("ADD_RULE", 2),
        ("ADD_RULE", 1),
    ]
    assert [line["verb"] for line in of_rules if line["owner"]] == ["UNASSIGN_RULE", "ASSIGN_RULE"] * 2
    assert [line["verb"] for line in lines if line["verb"].endswith("_OWNER")] == [
        "UNFREEZE_OWNER",
        "FREEZE_OWNER",
    ]
    for limit in range(1, len(lines) + 1):
        assert audit_trail(connection, limit=limit) == lines[:limit]


def test_freeze_of_a_payer_is_no_line_of_the_payees_holds(connection: Connection) -> None:
    """A frozen payer has a line, and the payee's hold has none."""
    hold_id = place_hold(connection, job=JOB)
    freeze(connection, owner=PAYER)

    lines = audit_trail(connection, owner=PAYER)

    assert [line["verb"] for line in lines] == ["FREEZE_OWNER"]
    assert audit_trail(connection, hold_id=hold_id) == audit_trail(connection, owner=PAYEE) == []
