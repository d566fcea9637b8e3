"""The audit trail of an earning with shares: a freeze of all is one line with the id that closes it."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection

from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.reports.audit_trail import audit_trail
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYEE, WITH_A_FEE, place_hold
from buffer_pipeline_tests.support.earnings import OF_A_FEW_UNITS
from buffer_pipeline_tests.support.rules import shares_of


def at(hour: int) -> datetime:
    """Return the time this many hours after NOON."""
    return NOON + timedelta(hours=hour)


def test_a_freeze_of_an_earning_is_one_line(connection: Connection) -> None:
    """So is its closing, for every filter. For the fee's owner it is the fee's line."""
    first = place_hold(connection, shares=WITH_A_FEE)
    shares = shares_of(connection, first)
    freeze = freeze_hold(connection, hold_id=first, kind=FreezeKind.RISK, by="risk-2", reason="hm", now=at(1))
    unfreeze_hold(connection, freeze_id=freeze.freeze_id, by="risk-2", reason="fine", now=at(2))

    for filters in ({}, {"by": "risk-2"}, {"owner": PAYEE}, {"hold_id": first}):
        lines = audit_trail(connection, **filters)
        assert [(line["verb"], line["hold_id"]) for line in lines] == [
            ("UNFREEZE", first),
            ("FREEZE", first),
        ]
    of_owner = audit_trail(connection, owner="platform")
    assert [(line["verb"], line["hold_id"]) for line in of_owner] == [
        ("UNFREEZE", shares["FEE"]),
        ("FREEZE", shares["FEE"]),
    ]
    of_reserve = audit_trail(connection, hold_id=shares["RESERVE"])
    assert [line["verb"] for line in of_reserve] == ["UNFREEZE", "FREEZE"]


def test_a_closing_after_the_first_share_was_refunded_is_one_line(connection: Connection) -> None:
    """The refund has closed the first share's freeze. The closing of the two others is one line."""
    first = place_hold(connection, amount="0.05", shares=OF_A_FEW_UNITS)
    freeze = freeze_hold(connection, hold_id=first, kind=FreezeKind.RISK, by="risk-2", reason="hm", now=at(1))
    refund_hold(
        connection, hold_id=first, amount="0.03", by=ADMIN, reason="stolen", reference="back-1", now=at(2)
    )
    unfreeze_hold(connection, freeze_id=freeze.freeze_id, by="risk-2", reason="fine", now=at(3))

    lines = [line for line in audit_trail(connection) if line["at"] == at(3)]

    fee = shares_of(connection, first)["FEE"]
    assert [(line["verb"], line["hold_id"]) for line in lines] == [("UNFREEZE", fee)]


@pytest.mark.parametrize("kind", ["PAYEE", "FEE", "RESERVE"])
def test_the_freeze_of_a_share_has_the_id_that_closes_it(connection: Connection, kind: str) -> None:
    """The lines of each share have the id and the references of the earning's freeze."""
    first = place_hold(connection, shares=WITH_A_FEE)
    share = shares_of(connection, first)[kind]
    freeze_hold(
        connection,
        hold_id=first,
        kind=FreezeKind.RISK,
        by="risk-2",
        reason="hm",
        reference="freeze-1",
        now=at(1),
    )
    (opened,) = audit_trail(connection, hold_id=share)

    freeze_id = opened["detail"]["freeze_id"]
    unfreeze_hold(
        connection, freeze_id=freeze_id, by="risk-2", reason="fine", reference="unfreeze-1", now=at(2)
    )

    closed, opened_before = audit_trail(connection, hold_id=share)
    assert opened_before == opened
    assert opened["detail"]["reference"] == "freeze-1"
    assert (closed["detail"]["freeze_id"], closed["detail"]["reference"]) == (freeze_id, "unfreeze-1")


def test_a_freeze_closed_by_a_refund_has_no_reference_of_a_later_closing(connection: Connection) -> None:
    """The refund closed the first share's freeze; only the later closing of the others has a reference."""
    first = place_hold(connection, amount="0.05", shares=OF_A_FEW_UNITS)
    shares = shares_of(connection, first)
    freeze = freeze_hold(connection, hold_id=first, kind=FreezeKind.RISK, by=ADMIN, reason="hm", now=at(1))
    refund_hold(
        connection, hold_id=first, amount="0.03", by=ADMIN, reason="stolen", reference="back-1", now=at(2)
    )
    unfreeze_hold(
        connection, freeze_id=freeze.freeze_id, by=ADMIN, reason="fine", reference="unfreeze-1", now=at(3)
    )

    of_payee, of_tax = (
        [line for line in audit_trail(connection, hold_id=shares[kind]) if line["verb"] == "UNFREEZE"]
        for kind in ("PAYEE", "TAX")
    )

    assert [(line["at"], line["detail"].get("reference")) for line in of_payee] == [(at(2), None)]
    assert [(line["at"], line["detail"].get("reference")) for line in of_tax] == [(at(3), "unfreeze-1")]
    assert of_tax[0]["detail"]["freeze_id"] == freeze.freeze_id
