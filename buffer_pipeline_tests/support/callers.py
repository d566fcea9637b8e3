"""Every verb, called as a platform calls it."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, text

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.database import AnyConnection, database_clock
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.intake import AddedHold, add_pending_earnings
from buffer_pipeline.owner_freeze import freeze_owner, unfreeze_owner
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.support.builders import ADMIN, DAY_7, JOB, NOON, PAYEE, PAYER, row_counts


def add_invoice(connection: AnyConnection, **changes: Any) -> AddedHold:
    """Add an earning of 1000 pesos."""
    return add_pending_earnings(
        connection,
        **{
            "reference": "invoice-1",
            "job": JOB,
            "payee": PAYEE,
            "payer": PAYER,
            "amount": "1000.00",
            "currency": "PHP",
            "now": NOON,
            **changes,
        },
    )


def invoices_and_holds(platform: Engine) -> tuple[int, int]:
    """Return the number of rows in the platform's table and in the books."""
    with platform.connect() as connection:
        invoices = connection.execute(text("SELECT count(*) FROM public.invoice")).scalar_one()
        return invoices, row_counts(connection)["hold"]


def every_verb(connection: AnyConnection) -> list[HoldState]:
    """Run each verb once on four holds; return the states of the holds, as replays return them."""

    def numbered(number: int) -> AddedHold:
        dates = {"held_at": NOON, "release_date": DAY_7}
        return add_invoice(connection, reference=f"invoice-{number}", job=f"job-{number}", **dates)

    released, early, _, resumed = [numbered(number) for number in range(4)]
    release_early(connection, hold_id=early.hold_id, by=PAYER, reason="well done", now=NOON)
    requested = request_backjob(connection, job="job-2", by=PAYER, reason="hm", now=NOON)
    approve_backjob(connection, backjob_id=requested.backjob_id, by=ADMIN, reason="yes", now=NOON)
    requested = request_backjob(connection, job="job-3", by=PAYER, reason="hm", now=NOON)
    reject_backjob(connection, backjob_id=requested.backjob_id, by=ADMIN, reason="no", now=NOON)
    frozen = freeze_hold(
        connection, hold_id=released.hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="?", now=NOON
    )
    unfreeze_hold(connection, freeze_id=frozen.freeze_id, by=ADMIN, reason="fine", now=NOON)
    freeze_owner(connection, owner=PAYEE, kind=FreezeKind.RISK, by=ADMIN, reason="?", now=NOON)
    unfreeze_owner(connection, owner=PAYEE, by=ADMIN, reason="fine", now=NOON)
    release_matured(connection, now=DAY_7, batch_limit=10)
    deposit(connection, owner=PAYEE, amount="5.00", currency="PHP", reference="transfer-1", now=NOON)
    withdraw(connection, owner=PAYEE, amount="2005.00", currency="PHP", reference="bank-1", now=NOON)
    assert database_clock(connection).utcoffset() is not None
    assert numbered(3).release_date == resumed.release_date + timedelta(hours=24)
    return [numbered(number).state for number in range(4)]


EVERY_VERB_LEAVES = [HoldState.RELEASED, HoldState.RELEASED, HoldState.REFUNDED, HoldState.BUFFERED]
