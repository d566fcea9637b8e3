"""Backjobs of a marketplace: clients ask for them, admins decide."""

from datetime import datetime
from functools import partial
from typing import Final

from sqlalchemy import Connection, func, select

from buffer_pipeline.backjob import (
    Backjob,
    approve_backjob,
    reject_backjob,
    request_backjob,
    withdraw_backjob,
)
from buffer_pipeline.currencies import places_of
from buffer_pipeline.errors import FreezeRefused
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.hours import HOUR
from buffer_pipeline.money import format_amount
from buffer_pipeline.policy import Policy
from buffer_pipeline.simulation.freezes import Freezes
from buffer_pipeline.simulation.jobs import Job, Jobs
from buffer_pipeline.simulation.plans import DAY, MarketplaceCounts, Plans
from buffer_pipeline.tables import unsettled_hold

_COMPLAINTS: Final = (
    "The work was not finished",
    "Not the colour that we agreed on",
    "Two rooms still have to be done",
    "It leaks again",
)
_DECISIONS: Final = {"reject": 40, "withdraw": 15, "approve": 25, "approve a part": 20}
"""How many backjobs of a hundred end in each way."""


class Backjobs:
    """Asks for backjobs and plans how each one ends."""

    def __init__(
        self, plans: Plans, counts: MarketplaceCounts, policy: Policy, *, jobs: Jobs, freezes: Freezes
    ) -> None:
        self._plans = plans
        self._counts = counts
        self._policy = policy
        self._jobs = jobs
        self._freezes = freezes

    def ask(self, connection: Connection, *, job: Job, now: datetime) -> None:
        """The client asks for a backjob, which is decided within five days."""
        plans = self._plans
        backjob = request_backjob(
            connection,
            job=job.job,
            by=job.payer,
            reason=plans.chance.choice(_COMPLAINTS),
            now=now,
            policy=self._policy,
        )
        if plans.happens(15):
            hold_id = plans.chance.choice(backjob.hold_ids)
            freeze = partial(self._freezes.freeze, hold_id=hold_id, kind=FreezeKind.ADMIN)
            plans.add(plans.within(now, DAY), freeze)
        decided_at = plans.within(now, 5 * DAY, after=3 * HOUR)
        plans.add(decided_at, partial(self._decide, job=job, backjob=backjob))
        if plans.happens(20, plans.late_chance):
            # One more worker of the team gets an earning while the backjob is open.
            plans.add(now + HOUR, partial(self._jobs.hold_late, job=job))

    def _decide(self, connection: Connection, *, job: Job, backjob: Backjob, now: datetime) -> None:
        decision = "reject"
        if not job.stubborn:
            decision = self._plans.chance.choices(tuple(_DECISIONS), tuple(_DECISIONS.values()))[0]
        if decision == "reject":
            self._reject(connection, job=job, backjob=backjob, now=now)
        elif decision == "withdraw":
            withdraw_backjob(
                connection,
                backjob_id=backjob.backjob_id,
                by=job.payer,
                reason="We have settled it ourselves",
                now=now,
            )
        else:
            self._approve(connection, job=job, backjob=backjob, in_part=decision == "approve a part", now=now)

    def _reject(self, connection: Connection, *, job: Job, backjob: Backjob, now: datetime) -> None:
        reject_backjob(
            connection,
            backjob_id=backjob.backjob_id,
            by="admin-1",
            reason="The photos show it done",
            now=now,
            policy=self._policy,
        )
        if job.stubborn or self._plans.happens(20):
            again = self._plans.within(now, self._policy.cooldown * 1.1)
            self._plans.add(again, partial(self.ask, job=job))

    def _approve(
        self, connection: Connection, *, job: Job, backjob: Backjob, in_part: bool, now: datetime
    ) -> None:
        amount = self._some_of(connection, backjob, currency=job.earnings[0].currency) if in_part else None
        try:
            approve_backjob(
                connection,
                backjob_id=backjob.backjob_id,
                by="admin-1",
                reason="The photos show it undone",
                amount=amount,
                now=now,
            )
        except FreezeRefused:
            # Another freeze is open. The admin tries again every day until it is closed.
            self._plans.add(now + DAY, partial(self._decide, job=job, backjob=backjob))
            raise
        self._counts.refunded_in_part += in_part

    def _some_of(self, connection: Connection, backjob: Backjob, *, currency: str) -> str:
        """Return a random part of the amount that the backjob's holds still hold."""
        held_minor: int = connection.execute(
            select(func.sum(unsettled_hold.c.amount_minor)).where(
                unsettled_hold.c.hold_id.in_(backjob.hold_ids)
            )
        ).scalar_one()
        part_minor = int(held_minor) * self._plans.chance.randint(20, 60) // 100
        return format_amount(part_minor, places_of(connection)[currency])
