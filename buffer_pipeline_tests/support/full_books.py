"""Books in which everything has happened once, and some holds wait."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYEE, PAYER, place_hold

LATER: Final = datetime.now(UTC) + timedelta(days=30)


def fill_books(connection: Connection) -> None:
    """Write books in which everything has happened once, and some holds wait."""
    for state in HoldState:
        place_hold(connection, state=state, job=f"job-{state}")
    place_hold(connection, job="waits", release_date=LATER)
    place_hold(connection, job="dollars", payee="worker-18", currency="USD", amount="7.00")
    for job, decided in (("asked", ""), ("rejected", "no"), ("refunded in part", "0.50"), ("twice", "no")):
        place_hold(connection, job=job, payee="worker-18", release_date=LATER if job == "asked" else None)
        request = request_backjob(connection, job=job, by=PAYER, reason="hm", now=NOON)
        decision: dict[str, Any] = {
            "backjob_id": request.backjob_id,
            "by": ADMIN,
            "reason": "so be it",
            "now": NOON,
        }
        if decided == "no":
            reject_backjob(connection, **decision)
        elif decided:
            approve_backjob(connection, **decision, amount=decided)
    place_hold(connection, job="refunded in part", state=HoldState.FROZEN)
    hold_id = place_hold(connection, job="looked at", release_date=LATER)
    look_at: dict[str, Any] = {"by": "risk-2", "reason": "hm", "now": NOON}
    freeze = freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.ADMIN, **look_at)
    unfreeze_hold(connection, freeze_id=freeze.freeze_id, **look_at)
    for reference, amount in (("back-1", None), ("back-2", "0.75")):
        frozen = place_hold(connection, job=reference, payee="worker-18", state=HoldState.FROZEN)
        refund_hold(
            connection,
            hold_id=frozen,
            by=ADMIN,
            reason="a fraud",
            reference=reference,
            now=NOON,
            amount=amount,
        )
    twice = request_backjob(connection, job="twice", by=PAYER, reason="again", now=NOON)
    (hold_id,) = twice.hold_ids
    freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, **look_at)
    shares = [Share(kind=ShareKind.PAYEE), Share(kind=ShareKind.FEE, owner="platform", percent=12)]
    place_hold(connection, job="divided", release_date=LATER, shares=shares)
    deposit(connection, owner=PAYER, amount="900.00", currency="PHP", reference="in-1", now=NOON)
    withdraw(connection, owner=PAYEE, amount="1.00", currency="PHP", reference="out-1", now=NOON)
