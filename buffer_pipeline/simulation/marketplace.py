"""A simulated marketplace: its clients, workers and admins act hour by hour, all through the verbs.

What they do depends on a seed and on the verbs' answers, never on the date: the same seed plays the same
story from any start. The marketplace writes nothing itself.
"""

from datetime import datetime, timedelta
from functools import partial
from typing import Final

from sqlalchemy import Connection

from buffer_pipeline.errors import (
    BackjobRefused,
    DateRefused,
    DebtRefused,
    FreezeRefused,
    InsufficientFunds,
    NotAllowed,
    PayoutRefused,
    RuleRefused,
    StateRefused,
    WindowClosed,
)
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.hours import HOUR
from buffer_pipeline.policy import Policy
from buffer_pipeline.simulation.backjobs import Backjobs
from buffer_pipeline.simulation.chargebacks import Chargebacks
from buffer_pipeline.simulation.freezes import Freezes
from buffer_pipeline.simulation.jobs import CLIENTS, WORKERS, Jobs
from buffer_pipeline.simulation.payouts import Payouts
from buffer_pipeline.simulation.plans import DAY, MarketplaceCounts, Plans
from buffer_pipeline.simulation.terms import Terms
from buffer_pipeline.simulation.wallets import Wallets

DEFAULT_JOBS_A_DAY: Final = 24

REFUSED_IN_LIFE: Final = (
    BackjobRefused,
    DateRefused,
    DebtRefused,
    FreezeRefused,
    InsufficientFunds,
    NotAllowed,
    PayoutRefused,
    RuleRefused,
    StateRefused,
    WindowClosed,
)
"""Refusals of what real people ask for and may not have. Any other refusal is an error of the marketplace
and is raised."""

_JOBS_BY_HOUR: Final = (1, 1, 1, 1, 2, 3, 5, 8, 10, 11, 11, 10, 9, 10, 11, 11, 10, 9, 8, 6, 4, 3, 2, 1)
"""How the jobs of a day are spread over its hours. Days begin at the marketplace's start."""
_WEEKEND: Final = (1, 2)
"""The days of a week with half as many jobs. Weeks begin at the marketplace's start."""


class Marketplace:
    """Clients who pay, workers who earn, admins who decide, and what they plan to do.

    If it `divides`, earnings have a fee of the platform, a tax and a reserve: by the rules of their workers,
    by a rule that the platform names, or by shares of their own. And clients release parts, payments are
    taken back weeks later, and every second worker is paid out each week.
    """

    def __init__(
        self,
        *,
        start: datetime,
        seed: int,
        jobs_a_day: int = DEFAULT_JOBS_A_DAY,
        policy: Policy | None = None,
        divides: bool = False,
    ) -> None:
        self.counts = MarketplaceCounts()
        self._start = start
        self._policy = policy or Policy()
        self._jobs_a_day = jobs_a_day
        self._divides = divides
        self._plans = Plans(seed)
        self._jobs = Jobs(self._plans, self.counts, self._policy, divides=divides)
        self._freezes = Freezes(self._plans)
        self._backjobs = Backjobs(
            self._plans, self.counts, self._policy, jobs=self._jobs, freezes=self._freezes
        )
        wallets = Wallets(self._plans)
        self._chargebacks = Chargebacks(self._plans)
        if divides:
            Payouts(self._plans).begin(start=start, workers=WORKERS)
            terms = Terms()
            self._plans.add(start, partial(terms.begin, workers=WORKERS))
            for number in range(1, WORKERS + 1):
                self._plans.add(start + number * 5 * DAY, partial(terms.change, worker=number))
        for number in range(1, CLIENTS + 1):
            self._plans.add(start, partial(wallets.deposit, client=number, month=1))
        for number in range(1, WORKERS + 1):
            moment = self._plans.within(start, 7 * DAY)
            if not divides or number % 2:
                self._plans.add(moment, partial(wallets.withdraw, worker=number, week=1))

    def play_hour(self, connection: Connection, *, hour: datetime) -> None:
        """Do what is done from `hour` to before the next one, in order, in the caller's transaction.

        Hours are played one after the other from the start. A verb that refuses has written nothing, and the
        refusal is counted.

        Raises:
            Refused: a refusal that is not in REFUSED_IN_LIFE; roll back.
        """
        for _ in range(self._jobs_done_in(hour)):
            self._plans.add(self._plans.within(hour, HOUR), self._finish_a_job)
        for moment, act in self._plans.take_until(hour + HOUR):
            try:
                act(connection, now=moment)
            except REFUSED_IN_LIFE as refusal:
                self.counts.refused[type(refusal).__name__] += 1

    def _jobs_done_in(self, hour: datetime) -> int:
        day, since_midnight = divmod(hour - self._start, DAY)
        share = _JOBS_BY_HOUR[since_midnight // HOUR] / sum(_JOBS_BY_HOUR)
        if day % 7 in _WEEKEND:
            share /= 2
        chance = self._plans.chance
        return int(2 * share * self._jobs_a_day * chance.random() + chance.random())

    def _finish_a_job(self, connection: Connection, *, now: datetime) -> None:
        """A job is done and approved: hold its earnings, and plan what people will do about them."""
        plans = self._plans
        job = self._jobs.new_job()
        holds = self._jobs.hold(connection, job, now=now)
        if plans.happens(4):
            # The platform sends the same event again.
            plans.add(plans.within(now, 2 * DAY), partial(self._jobs.hold_again, job=job))
        buffer = self._policy.buffer
        if plans.happens(10):
            # Some clients ask after the window has closed.
            plans.add(plans.within(now, buffer * 1.1, after=HOUR), partial(self._backjobs.ask, job=job))
        if plans.happens(8):
            plans.add(plans.within(now, buffer, after=HOUR), partial(self._jobs.release_early, job=job))
        if plans.happens(3):
            kind = FreezeKind.RISK if plans.happens(40) else FreezeKind.ADMIN
            hold_id = plans.chance.choice(holds).hold_id
            plans.add(plans.within(now, buffer), partial(self._freezes.freeze, hold_id=hold_id, kind=kind))
        if self._divides and plans.happens(6, plans.part_chance):
            given = plans.part_chance.choice(holds).hold_id
            moment = now + timedelta(seconds=int(plans.part_chance.random() * buffer.total_seconds()))
            plans.add(moment, partial(self._jobs.release_part, hold_id=given, job=job))
        if self._divides:
            self._chargebacks.plan(hold_id=holds[0].hold_id, now=now)
        if plans.happens(5, plans.move_chance):
            moved = plans.move_chance.choice(holds).hold_id
            moment = now + timedelta(seconds=int(plans.move_chance.random() * buffer.total_seconds()))
            plans.add(moment, partial(self._jobs.reschedule, hold_id=moved, job=job))
