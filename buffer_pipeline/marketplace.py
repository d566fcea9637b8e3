"""A marketplace that lives by the verbs: its clients, workers and admins, hour by hour, from a seed.

What it does depends on the seed and on what the verbs answer, never on the date: the same seed tells the
same story from any beginning. It writes nothing itself.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Final, Protocol

from sqlalchemy import Connection, func, select

from buffer_pipeline.backjob import (
    Backjob,
    approve_backjob,
    reject_backjob,
    request_backjob,
    withdraw_backjob,
)
from buffer_pipeline.currencies import places_of
from buffer_pipeline.errors import (
    BackjobRefused,
    FreezeRefused,
    InsufficientFunds,
    NotAllowed,
    Refused,
    StateRefused,
    WindowClosed,
)
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.hours import HOUR
from buffer_pipeline.intake import AddedHold, Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.money import format_amount, listed_places
from buffer_pipeline.policy import Policy
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import release_early
from buffer_pipeline.tables import unsettled_hold, wallet
from buffer_pipeline.wallet import deposit, withdraw

JOBS_A_DAY: Final = 24
WORKERS: Final = 40
CLIENTS: Final = 12

REFUSED_IN_LIFE: Final = (
    BackjobRefused,
    FreezeRefused,
    InsufficientFunds,
    NotAllowed,
    StateRefused,
    WindowClosed,
)
"""What people ask for and may not have. Any other refusal is a fault of the marketplace, and is raised."""

_DAY: Final = timedelta(days=1)
_JOBS_BY_HOUR: Final = (1, 1, 1, 1, 2, 3, 5, 8, 10, 11, 11, 10, 9, 10, 11, 11, 10, 9, 8, 6, 4, 3, 2, 1)
"""How the jobs of a day are spread over it. A day begins when the marketplace does."""
_WEEKEND: Final = (1, 2)
"""The days of a week, which begins when the marketplace does, that have half as many jobs."""

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
_COMPLAINTS: Final = (
    "The work was not finished",
    "Not the colour that we agreed on",
    "Two rooms still have to be done",
    "It leaks again",
)
_DECISIONS: Final = {"reject": 40, "withdraw": 15, "approve": 25, "approve a part": 20}
"""What becomes of a backjob, of a hundred."""
_WORTHWHILE_MINOR: Final = 10_000
"""Whoever has less leaves it in the wallet."""


@dataclass
class Tally:
    """What happened that the books do not say by themselves."""

    repeated: int = 0
    """Earnings that the platform stated once more, which wrote nothing."""
    refunded_in_part: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """How often a verb refused, by the refusal's name."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    job: str
    payer: str
    earnings: tuple[Earning, ...]
    stubborn: bool
    """Whether its client asks for a backjob again and again."""


class _Act(Protocol):
    def __call__(self, connection: Connection, *, now: datetime) -> None: ...


class Marketplace:
    """Clients who pay, workers who earn, admins who decide, and their plans for the days to come."""

    def __init__(
        self, *, start: datetime, seed: int, jobs_a_day: int = JOBS_A_DAY, policy: Policy | None = None
    ) -> None:
        self.tally = Tally()
        self._start = start
        self._policy = policy or Policy()
        self._jobs_a_day = jobs_a_day
        self._chance = random.Random(seed)  # noqa: S311 - a story that can be told again, not a secret
        self._late_chance = random.Random(f"late {seed}")  # noqa: S311 - as above
        self._numbers = count(1)
        self._late_numbers = count(1)
        self._plans: list[tuple[datetime, int, _Act]] = []
        self._order = count()
        for number in range(1, CLIENTS + 1):
            self._plan(start, partial(self._deposit, client=number, month=1))
        for number in range(1, WORKERS + 1):
            self._plan(self._within(start, 7 * _DAY), partial(self._withdraw, worker=number, week=1))

    def play_hour(self, connection: Connection, *, hour: datetime) -> None:
        """Do all that is done from `hour` to before the next, in its order, in the caller's transaction.

        Hours follow each other from the start. A verb that refuses has written nothing, and is counted.

        Raises:
            Refused: a verb refused what is none of REFUSED_IN_LIFE; roll back.
        """
        for _ in range(self._jobs_done_in(hour)):
            self._plan(self._within(hour, HOUR), self._finish_a_job)
        while self._plans and self._plans[0][0] < hour + HOUR:
            moment, _, act = heappop(self._plans)
            try:
                act(connection, now=moment)
            except REFUSED_IN_LIFE as refusal:
                self.tally.refused[type(refusal).__name__] += 1

    # ---- plans

    def _plan(self, moment: datetime, act: _Act) -> None:
        heappush(self._plans, (moment, next(self._order), act))

    def _within(self, begin: datetime, length: timedelta, *, after: timedelta = timedelta(0)) -> datetime:
        """Return some second from `begin + after` to before `begin + length`."""
        first = int(after.total_seconds())
        last = max(first, int(length.total_seconds()) - 1)
        return begin + timedelta(seconds=self._chance.randint(first, last))

    def _happens(self, percent: int, chance: random.Random | None = None) -> bool:
        return (chance or self._chance).randrange(100) < percent

    def _jobs_done_in(self, hour: datetime) -> int:
        day, since_midnight = divmod(hour - self._start, _DAY)
        share = _JOBS_BY_HOUR[since_midnight // HOUR] / sum(_JOBS_BY_HOUR)
        if day % 7 in _WEEKEND:
            share /= 2
        return int(2 * share * self._jobs_a_day * self._chance.random() + self._chance.random())

    # ---- jobs

    def _finish_a_job(self, connection: Connection, *, now: datetime) -> None:
        """A job is done and approved: hold its earnings, and settle who will do what about it."""
        job = self._new_job()
        holds = self._hold(connection, job, now=now)
        if self._happens(4):
            # The platform's queue brings the same event once more.
            again = self._within(now, 2 * _DAY)
            self._plan(again, partial(self._hold_again, job=job))
        buffer = self._policy.buffer
        if self._happens(10):
            # A few ask when the window has closed.
            self._plan(self._within(now, buffer * 1.1, after=HOUR), partial(self._ask_for_backjob, job=job))
        if self._happens(8):
            self._plan(self._within(now, buffer, after=HOUR), partial(self._release_early, job=job))
        if self._happens(3):
            kind = FreezeKind.RISK if self._happens(40) else FreezeKind.ADMIN
            hold_id = self._chance.choice(holds).hold_id
            self._plan(self._within(now, buffer), partial(self._freeze, hold_id=hold_id, kind=kind))

    def _new_job(self) -> _Job:
        # Of a name of their own, so that whoever tries the verbs on a sample meets no job of it.
        name = f"sample-job-{next(self._numbers)}"
        client = self._chance.randint(1, CLIENTS)
        # One in six pays in yen, now and then.
        currency = "JPY" if client % 6 == 0 and self._happens(50) else "PHP"
        # Every fifth job is the work of a team.
        team = self._chance.randint(2, 4) if self._happens(20) else 1
        title = self._chance.choice(_TITLES)
        earnings = tuple(
            Earning(
                reference=f"{name}-{place}",
                job=name,
                payee=f"worker-{worker}",
                payer=f"client-{client}",
                amount=format_amount(self._amount_minor(currency), listed_places(currency)),
                currency=currency,
                title=title,
            )
            for place, worker in enumerate(self._chance.sample(range(1, WORKERS + 1), team), start=1)
        )
        return _Job(job=name, payer=f"client-{client}", earnings=earnings, stubborn=self._happens(6))

    def _amount_minor(self, currency: str) -> int:
        quarters = self._chance.randint(1_200, 36_000)
        return quarters * (10 if currency == "JPY" else 25)

    def _hold(self, connection: Connection, job: _Job, *, now: datetime) -> Sequence[AddedHold]:
        if len(job.earnings) == 1:
            return [self._hold_one(connection, job.earnings[0], now=now)]
        return list(_held(add_many_pending_earnings(connection, job.earnings, now=now, policy=self._policy)))

    def _hold_one(self, connection: Connection, earning: Earning, *, now: datetime) -> AddedHold:
        return add_pending_earnings(
            connection,
            reference=earning.reference,
            job=earning.job,
            payee=earning.payee,
            payer=earning.payer,
            amount=earning.amount,
            currency=earning.currency,
            title=earning.title,
            now=now,
            policy=self._policy,
        )

    def _hold_again(self, connection: Connection, *, job: _Job, now: datetime) -> None:
        self.tally.repeated += sum(hold.replayed for hold in self._hold(connection, job, now=now))

    def _hold_late(self, connection: Connection, *, job: _Job, now: datetime) -> None:
        earning = replace(
            job.earnings[0],
            reference=f"{job.job}-late-{next(self._late_numbers)}",
            payee=f"worker-{self._late_chance.randint(1, WORKERS)}",
        )
        self._hold_one(connection, earning, now=now)

    def _release_early(self, connection: Connection, *, job: _Job, now: datetime) -> None:
        """The client is pleased; seldom an admin decides so, or somebody asks who may not."""
        by, as_admin = job.payer, False
        if self._happens(10):
            by, as_admin = "admin-1", True
        elif self._happens(5):
            by = job.earnings[0].payee
        release_early(connection, job=job.job, by=by, as_admin=as_admin, reason="Well done", now=now)

    # ---- backjobs

    def _ask_for_backjob(self, connection: Connection, *, job: _Job, now: datetime) -> None:
        backjob = request_backjob(
            connection,
            job=job.job,
            by=job.payer,
            reason=self._chance.choice(_COMPLAINTS),
            now=now,
            policy=self._policy,
        )
        if self._happens(15):
            hold_id = self._chance.choice(backjob.hold_ids)
            self._plan(self._within(now, _DAY), partial(self._freeze, hold_id=hold_id, kind=FreezeKind.ADMIN))
        decided_at = self._within(now, 5 * _DAY, after=3 * HOUR)
        self._plan(decided_at, partial(self._decide, job=job, backjob=backjob))
        if self._happens(20, self._late_chance):
            # One more of the team states what it earned while the backjob is open.
            self._plan(now + HOUR, partial(self._hold_late, job=job))

    def _decide(self, connection: Connection, *, job: _Job, backjob: Backjob, now: datetime) -> None:
        decision = "reject"
        if not job.stubborn:
            decision = self._chance.choices(tuple(_DECISIONS), tuple(_DECISIONS.values()))[0]
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

    def _reject(self, connection: Connection, *, job: _Job, backjob: Backjob, now: datetime) -> None:
        reject_backjob(
            connection,
            backjob_id=backjob.backjob_id,
            by="admin-1",
            reason="The photos show it done",
            now=now,
            policy=self._policy,
        )
        if job.stubborn or self._happens(20):
            again = self._within(now, self._policy.cooldown * 1.1)
            self._plan(again, partial(self._ask_for_backjob, job=job))

    def _approve(
        self, connection: Connection, *, job: _Job, backjob: Backjob, in_part: bool, now: datetime
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
            # Until the other freeze is closed.
            self._plan(now + _DAY, partial(self._decide, job=job, backjob=backjob))
            raise
        self.tally.refunded_in_part += in_part

    def _some_of(self, connection: Connection, backjob: Backjob, *, currency: str) -> str:
        """Return a part of what the backjob's holds hold."""
        held_minor: int = connection.execute(
            select(func.sum(unsettled_hold.c.amount_minor)).where(
                unsettled_hold.c.hold_id.in_(backjob.hold_ids)
            )
        ).scalar_one()
        part_minor = int(held_minor) * self._chance.randint(20, 60) // 100
        return format_amount(part_minor, places_of(connection)[currency])

    # ---- freezes

    def _freeze(self, connection: Connection, *, hold_id: int, kind: FreezeKind, now: datetime) -> None:
        by, reason = (
            ("risk-1", "Unusual amount for a new worker")
            if kind is FreezeKind.RISK
            else ("admin-1", "The client asked us to look into the invoice")
        )
        freeze = freeze_hold(connection, hold_id=hold_id, kind=kind, by=by, reason=reason, now=now)
        closed_at = self._within(now, 6 * _DAY, after=4 * HOUR)
        self._plan(closed_at, partial(self._unfreeze, freeze_id=freeze.freeze_id, by=by))
        if kind is FreezeKind.RISK and self._happens(40, self._late_chance):
            # It was a fraud, or half of it was: what is left is let go as planned.
            percent = 100 if self._happens(60, self._late_chance) else 50
            self._plan(now + 3 * HOUR, partial(self._refund, hold_id=hold_id, percent=percent))

    def _refund(self, connection: Connection, *, hold_id: int, percent: int, now: datetime) -> None:
        held = connection.execute(
            select(unsettled_hold.c.currency, unsettled_hold.c.amount_minor).where(
                unsettled_hold.c.hold_id == hold_id
            )
        ).one_or_none()
        if held is None:
            return
        currency, held_minor = held
        refund_hold(
            connection,
            hold_id=hold_id,
            by="admin-1",
            reason="The card was stolen",
            reference=f"refund-{hold_id}-{now:%Y%m%dT%H%M%S}",
            amount=format_amount(held_minor * percent // 100, places_of(connection)[currency]),
            now=now,
        )

    def _unfreeze(self, connection: Connection, *, freeze_id: int, by: str, now: datetime) -> None:
        unfreeze_hold(connection, freeze_id=freeze_id, by=by, reason="All is in order", now=now)

    # ---- wallets

    def _deposit(self, connection: Connection, *, client: int, month: int, now: datetime) -> None:
        for currency, amount in (("PHP", "250000.00"), ("JPY", "400000")):
            if currency == "PHP" or client % 6 == 0:
                deposit(
                    connection,
                    owner=f"client-{client}",
                    amount=amount,
                    currency=currency,
                    reference=f"deposit-{client}-{month}-{currency}",
                    now=now,
                )
        self._plan(now + 30 * _DAY, partial(self._deposit, client=client, month=month + 1))

    def _withdraw(self, connection: Connection, *, worker: int, week: int, now: datetime) -> None:
        self._plan(now + 7 * _DAY, partial(self._withdraw, worker=worker, week=week + 1))
        owner = f"worker-{worker}"
        rows = connection.execute(
            select(wallet.c.currency, wallet.c.balance_minor)
            .where(wallet.c.owner == owner, wallet.c.balance_minor >= _WORTHWHILE_MINOR)
            .order_by(wallet.c.currency)
        )
        places = places_of(connection)
        for currency, balance_minor in rows.all():
            # Now and then somebody asks for what is still in the buffer too.
            percent = 110 if self._happens(3) else self._chance.randint(30, 100)
            withdraw(
                connection,
                owner=owner,
                amount=format_amount(balance_minor * percent // 100, places[currency]),
                currency=currency,
                reference=f"withdrawal-{worker}-{week}-{currency}",
                now=now,
            )


def _held(outcomes: Sequence[AddedHold | Refused]) -> Iterator[AddedHold]:
    for outcome in outcomes:
        if isinstance(outcome, Refused):
            raise outcome
        yield outcome
