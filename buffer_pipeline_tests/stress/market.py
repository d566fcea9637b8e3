"""The marketplace as its platform knows it: owners, jobs, and possible targets of verbs.

It has only committed data, which may be out of date: the books decide.
"""

import random
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from threading import Lock
from typing import Any, Final

from buffer_pipeline.backjob import Backjob
from buffer_pipeline.freeze import Freeze
from buffer_pipeline.hold import BackjobState
from buffer_pipeline.intake import AddedHold, Earning
from buffer_pipeline_tests.stress.clock import Clock
from buffer_pipeline_tests.stress.record import Call

CURRENCIES: Final = ("PHP", "PHP", "PHP", "PHP", "JPY", "KWD")
OWNERS: Final = 240
HOT_OWNERS: Final = 6
JOBS_IN_USE: Final = 30
JOBS_IN_FOCUS: Final = 3
"""The newest jobs, the target of most verbs."""

TEAM_MAX: Final = 6


@dataclass(eq=False)
class Job:
    """A job with one payer and one currency, its team, and what is known of its holds."""

    name: str
    payer: str
    currency: str
    team: list[str]
    holds: list[int] = field(default_factory=list)
    freezes: dict[int, int] = field(default_factory=dict)
    """freeze_id -> hold_id of freezes believed to be open."""
    backjobs: deque[int] = field(default_factory=lambda: deque(maxlen=3))
    calls: int = 0


class Market:
    """The shared state from which all threads of a round choose their next call."""

    def __init__(self, seed: str) -> None:
        self.clock = Clock()
        self.earnings: deque[Earning] = deque(maxlen=60)
        """Earnings sent lately, whatever their result."""
        self.movements: deque[dict[str, str]] = deque(maxlen=30)
        self.refunds: deque[dict[str, Any]] = deque(maxlen=30)
        self.parts: deque[dict[str, Any]] = deque(maxlen=30)
        self.sent: defaultdict[str, deque[dict[str, Any]]] = defaultdict(lambda: deque(maxlen=30))
        """By verb, the latest calls with a reference."""
        self._lock = Lock()
        self._numbers = count(1)
        self._chance = random.Random(seed)
        self._jobs: dict[str, Job] = {}
        self._job_of: dict[int, Job] = {}
        self._in_use: deque[Job] = deque(maxlen=JOBS_IN_USE)
        for _ in range(JOBS_IN_USE):
            self._open_job()

    def number(self) -> int:
        """Return a unique number for a reference."""
        return next(self._numbers)

    def owner(self, chance: random.Random) -> str:
        """Return an owner: half of the time one of the few hot ones."""
        number = chance.randrange(HOT_OWNERS if chance.random() < 0.5 else OWNERS)
        return f"worker-{number}"

    def job(self, chance: random.Random) -> Job:
        """Return a job: mostly one in focus, rarely an old one."""
        with self._lock:
            drawn = chance.random()
            if drawn < 0.65:
                job = self._in_use[-1 - chance.randrange(JOBS_IN_FOCUS)]
            elif drawn < 0.95:
                job = chance.choice(self._in_use)
            else:
                job = chance.choice(list(self._jobs.values())) if chance.random() < 0.1 else self._in_use[0]
            job.calls += 1
            if job.calls == 120:
                self._open_job()
            return job

    def _open_job(self) -> None:
        chance = self._chance
        owners = list({self.owner(chance): None for _ in range(TEAM_MAX + 1)})
        self._in_use.append(
            Job(
                name=f"job-{len(self._jobs)}",
                payer=owners[0],
                currency=chance.choice(CURRENCIES),
                team=owners[1:] or [f"client-{chance.randrange(OWNERS)}"],
            )
        )
        self._jobs[self._in_use[-1].name] = self._in_use[-1]

    def earning(self, chance: random.Random, job: Job | None = None) -> Earning:
        """Return a new earning, or one that was sent before, with the same or other content.

        It is of `job` if given, and rarely one of another payer.
        """
        if self.earnings and chance.random() < 0.12:
            sent = chance.choice(list(self.earnings))
            if chance.random() < 0.6:
                return sent
            return Earning(**{**vars(sent), "amount": "7"})
        job, held_at = job or self.job(chance), self.clock.read()
        earning = Earning(
            reference=f"earning-{self.number()}",
            job=job.name,
            payee=chance.choice(job.team),
            payer=job.payer if chance.random() < 0.97 else "a stranger",
            amount=str(chance.randint(1, 5_000)),
            currency=job.currency,
            title="a day's work",
            held_at=held_at,
            release_date=held_at + timedelta(hours=chance.choice((0.2, 1, 4, 12, 30))),
        )
        self.earnings.append(earning)
        return earning

    def learn(self, call: Call) -> None:
        """Apply the result of a committed call."""
        answer, arguments = call.answer, call.arguments
        if isinstance(answer, AddedHold):
            self._learn_hold(arguments["job"], answer)
        elif isinstance(answer, list):
            for earning, added in zip(arguments["earnings"], answer, strict=True):
                if isinstance(added, AddedHold):
                    self._learn_hold(earning.job, added)
        elif isinstance(answer, Freeze):
            freezes = self._job_of[answer.hold_id].freezes
            if call.verb == "freeze":
                freezes[answer.freeze_id] = answer.hold_id
            elif call.number % 4:
                # Some closed freezes are kept, so that closing them again is refused.
                freezes.pop(answer.freeze_id, None)
        elif isinstance(answer, Backjob) and answer.state is BackjobState.OPEN:
            self._jobs[answer.job].backjobs.append(answer.backjob_id)

    def _learn_hold(self, job: str, added: AddedHold) -> None:
        if added.hold_id not in self._job_of:
            self._job_of[added.hold_id] = self._jobs[job]
            self._jobs[job].holds.append(added.hold_id)
