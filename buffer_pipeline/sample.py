"""A believable small sample, so that empty books have something to look at."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from sqlalchemy import Connection, select

from buffer_pipeline.backjob import reject_backjob, request_backjob
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import add_pending_earnings
from buffer_pipeline.tables import hold, wallet
from buffer_pipeline.wallet import deposit

DUE_HOLDS: Final = 12
WAITING_HOLDS: Final = 48
WORKERS: Final = 12
CLIENTS: Final = 5
SEED: Final = 7

_TITLES: Final = (
    "Aircon cleaning",
    "Logo design",
    "Pipe repair",
    "House painting",
    "Web page",
    "Furniture assembly",
    "Translation",
    "Photo session",
)


@dataclass(frozen=True, kw_only=True)
class _Job:
    job: str
    title: str
    payer: str
    currency: str
    held_at: datetime
    payees: tuple[str, ...]


def books_are_empty(connection: Connection) -> bool:
    """Return whether the books have no hold and no wallet."""
    return all(connection.execute(select(table).limit(1)).first() is None for table in (hold, wallet))


def load_sample(connection: Connection, *, now: datetime) -> int:
    """Fill empty books through the verbs, as if the last nine days had gone by, and return the holds.

    Of about sixty holds a dozen are due at `now`; two backjobs are open, one of them for more
    than three days; one was rejected; one hold is under an admin's freeze and one under a risk
    freeze. The same `now` gives the same books.
    """
    assert books_are_empty(connection), "a sample is for empty books"
    chance = random.Random(SEED)  # noqa: S311 - a sample that is the same each time, not a secret
    _deposit_for_clients(connection, now=now - timedelta(days=9))
    jobs = _jobs(chance, now=now)
    hold_ids: dict[str, list[int]] = {}
    # In the order in which it happened, so that the books read as they would have grown.
    for job in sorted(jobs, key=lambda job: job.held_at):
        hold_ids[job.job] = _hold_job(connection, chance, job)
    waiting = sorted((job for job in jobs if job.held_at > now - timedelta(days=6)), key=_held_at)
    long_stuck, rejected, admin, risk, recent = (waiting[place] for place in (0, 1, -9, -6, -3))
    request_backjob(
        connection,
        job=long_stuck.job,
        by=long_stuck.payer,
        reason="The work was not finished",
        now=max(long_stuck.held_at + timedelta(hours=2), now - timedelta(days=5)),
    )
    refused = request_backjob(
        connection,
        job=rejected.job,
        by=rejected.payer,
        reason="Not the colour that we agreed on",
        now=now - timedelta(days=3),
    )
    reject_backjob(
        connection,
        backjob_id=refused.backjob_id,
        by="admin-1",
        reason="The photos show the agreed colour",
        now=now - timedelta(days=2),
    )
    for job, kind, reason in (
        (admin, FreezeKind.ADMIN, "The client asked us to look into the invoice"),
        (risk, FreezeKind.RISK, "Unusual amount for a new worker"),
    ):
        freeze_hold(
            connection,
            hold_id=hold_ids[job.job][0],
            kind=kind,
            by="admin-1" if kind is FreezeKind.ADMIN else "risk-1",
            reason=reason,
            now=now - timedelta(hours=3),
        )
    request_backjob(
        connection,
        job=recent.job,
        by=recent.payer,
        reason="Two rooms still have to be done",
        now=now - timedelta(hours=2),
    )
    return sum(len(ids) for ids in hold_ids.values())


def _held_at(job: _Job) -> datetime:
    return job.held_at


def _deposit_for_clients(connection: Connection, *, now: datetime) -> None:
    for number in range(1, CLIENTS + 1):
        for currency, amount in (("PHP", "250000.00"), ("JPY", "400000")):
            if currency == "JPY" and number != CLIENTS:
                continue
            deposit(
                connection,
                owner=f"client-{number}",
                amount=amount,
                currency=currency,
                reference=f"sample-deposit-{number}-{currency}",
                now=now,
            )


def _jobs(chance: random.Random, *, now: datetime) -> list[_Job]:
    """Return the jobs: those that are due at `now`, then those that wait."""
    jobs: list[_Job] = []
    for holds, oldest, newest in (
        (DUE_HOLDS, timedelta(days=9), timedelta(days=7, minutes=1)),
        (WAITING_HOLDS, timedelta(days=6, hours=20), timedelta(hours=4)),
    ):
        placed = 0
        while placed < holds:
            # Every fifth job or so is the work of a team of two.
            team = min(holds - placed, 2 if chance.randint(1, 5) == 1 else 1)
            number = len(jobs) + 1
            client = chance.randint(1, CLIENTS)
            workers = chance.sample(range(1, WORKERS + 1), team)
            ago = newest + (oldest - newest) * chance.random()
            jobs.append(
                _Job(
                    job=f"job-{number}",
                    title=chance.choice(_TITLES),
                    payer=f"client-{client}",
                    # One client pays in yen, now and then.
                    currency="JPY" if client == CLIENTS and chance.choice((True, False)) else "PHP",
                    held_at=now - ago,
                    payees=tuple(f"worker-{worker}" for worker in workers),
                )
            )
            placed += team
    return jobs


def _hold_job(connection: Connection, chance: random.Random, job: _Job) -> list[int]:
    """Hold each payee's earning and return the holds' ids."""
    hold_ids = []
    for place, payee in enumerate(job.payees, start=1):
        quarters = chance.randint(1_200, 36_000)
        amount = Decimal(quarters * 10) if job.currency == "JPY" else Decimal(quarters * 25).scaleb(-2)
        added = add_pending_earnings(
            connection,
            reference=f"sample-{job.job}-{place}",
            job=job.job,
            payee=payee,
            payer=job.payer,
            amount=amount,
            currency=job.currency,
            title=job.title,
            now=job.held_at,
        )
        hold_ids.append(added.hold_id)
    return hold_ids
