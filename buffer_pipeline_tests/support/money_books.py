"""The books that the verbs of money_verbs run on."""

from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, text

from buffer_pipeline.backjob import request_backjob
from buffer_pipeline.debts import ClawbackTo, claw_back
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.owner_freeze import freeze_owner
from buffer_pipeline.payouts import approve_payout_batch
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYEE, PAYER, WITH_A_FEE, place_hold
from buffer_pipeline_tests.support.payouts import APPROVER, make_batch, payable, request, send_batch, to_iban

NOW: Final = NOON + timedelta(days=1)

FROZEN_OWNER: Final = "worker-frozen"

DEBTOR: Final = "worker-owes"

BATCHES: Final = ("sent", "approved", "made")
"""The batches of payouts, in the order in which they are made."""


def make_ready(connection: Connection) -> None:
    """Write a balance, a waiting hold, one frozen by an admin, a job with an open backjob, a frozen owner,
    an owner with a debt, a balance and a waiting hold, a batch of payouts in each state, and a requested one.
    """
    place_hold(connection, state=HoldState.RELEASED)
    to_iban(connection, PAYEE)
    place_hold(connection, job="job-waits", reference="waits")
    place_hold(connection, state=HoldState.FROZEN, job="job-suspect", reference="suspect")
    place_hold(connection, job="job-asked")
    place_hold(connection, job="job-divided", reference="divided", shares=WITH_A_FEE)
    place_hold(
        connection,
        state=HoldState.FROZEN,
        job="job-suspect-shares",
        reference="suspect-shares",
        shares=WITH_A_FEE,
    )
    request_backjob(connection, job="job-asked", by=PAYER, reason="it leaks", now=NOON)
    for number in range(2):
        place_hold(connection, job=f"job-frozen-{number}", payee=FROZEN_OWNER)
    for reference in ("owed", "spent"):
        place_hold(
            connection,
            state=HoldState.RELEASED,
            job=f"job-{reference}",
            reference=reference,
            payee=DEBTOR if reference == "owed" else "worker-spent",
        )
    for owner, amount in ((DEBTOR, 1000), ("worker-spent", 400)):
        withdraw(connection, owner=owner, amount=amount, currency="PHP", reference=f"spent-{owner}", now=NOON)
    claw_back(
        connection,
        hold_id=named(connection, "owed"),
        amount="1000.00",
        to=ClawbackTo.PAYER,
        by=ADMIN,
        reason="a fraud",
        reference="taken-0",
        now=NOON,
    )
    for owner in (DEBTOR, "shop"):
        deposit(connection, owner=owner, amount=500, currency="PHP", reference=f"in-{owner}", now=NOON)
    place_hold(connection, job="job-pays", reference="pays", payee=DEBTOR, amount="300.00")
    freeze_owner(connection, owner=FROZEN_OWNER, kind=FreezeKind.ADMIN, by=ADMIN, reason="a look", now=NOON)
    for state in BATCHES:
        payable(connection, "worker-paid")
        request(connection, "worker-paid", reference=state)
        if state == "sent":
            request(connection, "worker-paid", reference="sent too")
        batch = make_batch(connection)
        if state == "approved":
            approve_payout_batch(connection, payout_batch_id=batch.payout_batch_id, by=APPROVER, now=NOW)
        elif state == "sent":
            send_batch(connection, batch)
    request(connection, "worker-paid", reference="requested")


def payout_named(connection: Connection, reference: str) -> int:
    found: int = connection.execute(
        text("SELECT payout_id FROM buffer.payout WHERE reference = :reference"), {"reference": reference}
    ).scalar_one()
    return found


def batch_named(connection: Connection, reference: str) -> int:
    # The batch is looked up by when it was made, because a cancelled payout names none.
    found: int = connection.execute(
        text(
            "SELECT payout_batch_id FROM buffer.payout_batch ORDER BY payout_batch_id OFFSET :place LIMIT 1"
        ),
        {"place": BATCHES.index(reference)},
    ).scalar_one()
    return found


def named(connection: Connection, reference: str) -> int:
    found: int = connection.execute(
        text("SELECT min(hold_id) FROM buffer.hold WHERE reference = :reference"), {"reference": reference}
    ).scalar_one()
    return found
