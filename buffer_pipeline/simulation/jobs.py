"""Jobs of a marketplace: who works for whom, the earnings that are held, and early releases."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import count
from typing import Final

from sqlalchemy import Connection

from buffer_pipeline.errors import Refused
from buffer_pipeline.intake import AddedHold, Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.money import format_amount, listed_places
from buffer_pipeline.policy import Policy
from buffer_pipeline.release import release_early
from buffer_pipeline.reports.holds import show_hold
from buffer_pipeline.reschedule import reschedule_hold
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline.simulation.plans import DAY, MarketplaceCounts, Plans

WORKERS: Final = 40
CLIENTS: Final = 12

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
class Job:
    """A job that is done and approved, with the earnings of its workers."""

    job: str
    payer: str
    earnings: tuple[Earning, ...]
    stubborn: bool
    """Whether its client asks for a backjob again and again."""


class Jobs:
    """Makes jobs and holds what they earn."""

    def __init__(
        self, plans: Plans, counts: MarketplaceCounts, policy: Policy, *, divides: bool = False
    ) -> None:
        self._plans = plans
        self._counts = counts
        self._policy = policy
        self._divides = divides
        self._numbers = count(1)
        self._late_numbers = count(1)
        self._part_numbers = count(1)

    def new_job(self) -> Job:
        """Return a job with random people and amounts."""
        plans, chance = self._plans, self._plans.chance
        # People who try the verbs on a sample use other names than this prefix gives.
        name = f"sample-job-{next(self._numbers)}"
        client = chance.randint(1, CLIENTS)
        # One client in six pays half of the jobs in yen.
        currency = "JPY" if client % 6 == 0 and plans.happens(50) else "PHP"
        # Every fifth job is the work of a team.
        team = chance.randint(2, 4) if plans.happens(20) else 1
        title = chance.choice(_TITLES)
        shares, rule = self._terms()
        earnings = tuple(
            Earning(
                reference=f"{name}-{place}",
                job=name,
                payee=f"worker-{worker}",
                payer=f"client-{client}",
                amount=format_amount(self._amount_minor(currency), listed_places(currency)),
                currency=currency,
                title=title,
                shares=shares,
                rule=rule,
            )
            for place, worker in enumerate(chance.sample(range(1, WORKERS + 1), team), start=1)
        )
        return Job(job=name, payer=f"client-{client}", earnings=earnings, stubborn=plans.happens(6))

    def _terms(self) -> tuple[tuple[Share, ...], str | None]:
        """Most jobs have the rules of their workers; some name a rule, some have shares of their own."""
        plans, chance = self._plans, self._plans.share_chance
        if not self._divides:
            return (), None
        if plans.happens(12, chance):
            return (), "marketplace"
        if not plans.happens(14, chance):
            return (), None
        shares = [
            Share(kind=ShareKind.PAYEE),
            Share(kind=ShareKind.FEE, owner="platform", percent=chance.choice(("8", "12.5", "15"))),
        ]
        if plans.happens(50, chance):
            # The tax office does not wait.
            shares.append(Share(kind=ShareKind.TAX, owner="tax-office", percent=2, days=0))
        if plans.happens(30, chance):
            shares.append(Share(kind=ShareKind.RESERVE, percent=10, days=chance.choice((14, 30))))
        return tuple(shares), None

    def _amount_minor(self, currency: str) -> int:
        quarters = self._plans.chance.randint(1_200, 36_000)
        return quarters * (10 if currency == "JPY" else 25)

    def hold(self, connection: Connection, job: Job, *, now: datetime) -> Sequence[AddedHold]:
        """Hold a job's earnings; those of a team in one call."""
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
            shares=earning.shares,
            rule=earning.rule,
            now=now,
            policy=self._policy,
        )

    def hold_again(self, connection: Connection, *, job: Job, now: datetime) -> None:
        """The platform sends the same earnings once more."""
        self._counts.repeated += sum(hold.replayed for hold in self.hold(connection, job, now=now))

    def hold_late(self, connection: Connection, *, job: Job, now: datetime) -> None:
        """One more worker of the job gets an earning."""
        earning = replace(
            job.earnings[0],
            reference=f"{job.job}-late-{next(self._late_numbers)}",
            payee=f"worker-{self._plans.late_chance.randint(1, WORKERS)}",
        )
        self._hold_one(connection, earning, now=now)

    def release_early(self, connection: Connection, *, job: Job, now: datetime) -> None:
        """The client releases early; sometimes an admin does, or the payee asks, who may not."""
        by, as_admin = job.payer, False
        if self._plans.happens(10):
            by, as_admin = "admin-1", True
        elif self._plans.happens(5):
            by = job.earnings[0].payee
        release_early(
            connection,
            job=job.job,
            by=by,
            as_admin=as_admin,
            reason="Well done",
            now=now,
            policy=self._policy,
        )

    def release_part(self, connection: Connection, *, hold_id: int, job: Job, now: datetime) -> None:
        """The client releases a part, often another one later; some ask for more than is held."""
        chance = self._plans.part_chance
        hold = show_hold(connection, hold_id=hold_id)
        part_minor = max(1, hold["left_minor"] * chance.choice((25, 33, 50, 100, 200)) // 100)
        places = listed_places(hold["currency"])
        release_early(
            connection,
            hold_id=hold_id,
            amount=format_amount(part_minor, places),
            reference=f"{job.job}-part-{next(self._part_numbers)}",
            by=job.earnings[0].payee if self._plans.happens(5, chance) else job.payer,
            reason="A part is done",
            now=now,
            policy=self._policy,
        )
        if self._plans.happens(40, chance):
            self._plans.add(now + DAY, partial(self.release_part, hold_id=hold_id, job=job))

    def reschedule(self, connection: Connection, *, hold_id: int, job: Job, now: datetime) -> None:
        """The client gives up a day of the window, or an admin adds some, or too many."""
        chance = self._plans.move_chance
        release_date = show_hold(connection, hold_id=hold_id)["release_date"]
        by, as_admin, days = job.payer, False, -1
        if self._plans.happens(40, chance):
            by, as_admin, days = "admin-1", True, chance.choice((1, 2, 5, 20, 100))
        elif self._plans.happens(10, chance):
            by = job.earnings[0].payee
        reschedule_hold(
            connection,
            hold_id=hold_id,
            to=release_date + days * DAY,
            by=by,
            as_admin=as_admin,
            reason="As agreed",
            now=now,
            policy=self._policy,
        )


def _held(outcomes: Sequence[AddedHold | Refused]) -> Iterator[AddedHold]:
    for outcome in outcomes:
        if isinstance(outcome, Refused):
            raise outcome
        yield outcome
