"""Cases for two verbs: a separate job with its own hold, payee and payer."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, text

from buffer_pipeline.backjob import request_backjob
from buffer_pipeline.debts import ClawbackTo, claw_back
from buffer_pipeline.errors import Refused
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.owner_freeze import freeze_owner
from buffer_pipeline.payouts import set_destination
from buffer_pipeline.release import Shard, release_matured
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline.wallet import withdraw
from buffer_pipeline_tests.support.builders import ADMIN, NOON
from buffer_pipeline_tests.support.ends import number_in


@dataclass(frozen=True)
class Case:
    """A job with one hold, a payee and a payer of its own. Its number is in their names."""

    number: int
    """The job's number."""
    owners: int
    """The payee and the payer."""
    hold_id: int
    shard: Shard
    """The payee's wallet, which has 100.00."""
    backjob_id: int | None
    """An open backjob, if the pair needs one."""
    freeze_id: int | None
    """An open RISK freeze, if the pair needs one."""
    debt_id: int | None = None
    """A debt to the payer, if the pair needs one. Then the payee's wallet is empty."""


def earning(number: int, name: str, **changes: Any) -> Earning:
    """Return an earning of the case's job; `name` is part of its reference."""
    stated = {
        "reference": f"{name}-{number}",
        "job": f"job-{number}",
        "payee": f"worker-{number}",
        "payer": f"client-{number}",
        "amount": "1000.00",
        "currency": "PHP",
        "held_at": NOON,
    }
    return Earning(**{**stated, **changes})


def shares_of(number: int) -> tuple[Share, ...]:
    """Return the shares of a case's earning: a fee, a tax that is due at once, and a reserve."""
    return (
        Share(kind=ShareKind.PAYEE),
        Share(kind=ShareKind.FEE, owner=f"fees-{number}", percent="12.5"),
        Share(kind=ShareKind.TAX, owner=f"taxes-{number}", percent=2, days=0),
        Share(kind=ShareKind.RESERVE, percent=10, days=90),
    )


def lay_out(
    connection: Connection,
    *,
    cases: int,
    backjob: bool,
    freeze: bool,
    frozen_owner: bool = False,
    divided: bool = False,
    debt: bool = False,
) -> None:
    """Write a number of identical cases."""
    before = NOON - timedelta(days=1)
    paid = {"amount": "100.00", "held_at": before, "release_date": before}
    numbers = range(cases)
    outcomes = add_many_pending_earnings(
        connection,
        [earning(number, "paid", job=f"before-{number}", **paid) for number in numbers],
        now=before,
    )
    release_matured(connection, now=before, batch_limit=cases)
    for number in numbers:
        set_destination(
            connection,
            owner=f"worker-{number}",
            method="TOKEN",
            account="acct",
            by=ADMIN,
            reason="hm",
            now=before,
        )
    outcomes += add_many_pending_earnings(
        connection,
        [earning(number, "earning", shares=shares_of(number) if divided else ()) for number in numbers],
        now=NOON,
    )
    assert not any(isinstance(outcome, Refused) for outcome in outcomes)
    for number in numbers:
        if backjob:
            request_backjob(
                connection, job=f"job-{number}", by=f"client-{number}", reason="it leaks", now=NOON
            )
    if freeze:
        for hold_id in connection.scalars(
            text("SELECT hold_id FROM buffer.hold WHERE reference LIKE 'earning-%' AND earning_id IS NULL")
        ).all():
            freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="hm", now=NOON)
    for number in numbers if debt else ():
        spent = {"amount": "100.00", "currency": "PHP", "reference": f"out-{number}-before"}
        withdraw(connection, owner=f"worker-{number}", now=before, **spent)
        claw_back(
            connection,
            earning_reference=f"paid-{number}",
            amount="100.00",
            to=ClawbackTo.PAYER,
            by=ADMIN,
            reason="a fraud",
            reference=f"taken-{number}-before",
            now=NOON,
        )
    if frozen_owner:
        for number in numbers:
            owner = f"worker-{number}"
            freeze_owner(connection, owner=owner, kind=FreezeKind.ADMIN, by=ADMIN, reason="hm", now=NOON)


def cases_of(connection: Connection) -> list[Case]:
    """Return the prepared cases."""
    rows = connection.execute(
        text(
            "SELECT hold.job, hold.hold_id, hold.payee_wallet_id, backjob.backjob_id, hold_freeze.freeze_id,"
            " (SELECT debt_id FROM buffer.debt WHERE debt.wallet_id = hold.payee_wallet_id)"
            " FROM buffer.hold LEFT JOIN buffer.backjob USING (job)"
            " LEFT JOIN buffer.hold_freeze"
            " ON hold_freeze.hold_id = hold.hold_id AND hold_freeze.kind = 'RISK'"
            " WHERE hold.reference LIKE 'earning-%' AND hold.earning_id IS NULL ORDER BY hold.hold_id"
        )
    )
    return [
        Case(number_in(job), number_in(job), hold_id, Shard(after=wallet_id - 1, through=wallet_id), *ids)
        for job, hold_id, wallet_id, *ids in rows
    ]
