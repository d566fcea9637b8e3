"""Refunds by an admin, with freezes and backjobs."""

from typing import Any

from sqlalchemy import Connection

from buffer_pipeline.backjob import Backjob, approve_backjob, request_backjob
from buffer_pipeline.freeze import Freeze, freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.refund import Refund, refund_hold
from buffer_pipeline_tests.support.builders import ADMIN, JOB, NOON, PAYER, WITH_A_FEE, hold_row, place_hold
from buffer_pipeline_tests.support.rules import shares_of


def refund(connection: Connection, hold_id: int, **changes: Any) -> Refund:
    """Refund as an admin, with some arguments changed."""
    arguments = {"by": ADMIN, "reason": "stolen card", "reference": "refund-1", "now": NOON}
    return refund_hold(connection, hold_id=hold_id, **{**arguments, **changes})


def freeze_for_risk(connection: Connection, hold_id: int, kind: FreezeKind = FreezeKind.RISK) -> Freeze:
    """Put a RISK freeze on a hold."""
    return freeze_hold(connection, hold_id=hold_id, kind=kind, by="risk-2", reason="a look", now=NOON)


def open_backjob(connection: Connection) -> int:
    """Request a backjob on JOB as its client."""
    return request_backjob(connection, job=JOB, by=PAYER, reason="not as agreed", now=NOON).backjob_id


def approve(connection: Connection, backjob_id: int, **changes: Any) -> Backjob:
    """Approve as an admin, with some arguments changed."""
    return approve_backjob(
        connection, backjob_id=backjob_id, **{"by": ADMIN, "reason": "indeed", "now": NOON, **changes}
    )


def refunded(connection: Connection, *hold_ids: int) -> list[int]:
    """Return the refunded amount of each hold, in minor units."""
    return [hold_row(connection, hold_id)["refunded_minor"] for hold_id in hold_ids]


def place_frozen(connection: Connection) -> list[int]:
    """Hold and freeze 780.00 for the payee, a fee of 120.00 and a reserve of 100.00; return the holds."""
    first = place_hold(connection, shares=WITH_A_FEE)
    freeze_for_risk(connection, first)
    shares = shares_of(connection, first)
    return [first, shares["FEE"], shares["RESERVE"]]
