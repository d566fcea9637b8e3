"""Days of a marketplace on empty books, each hour through the real verbs and the real release run."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import Engine

from buffer_pipeline.database import make_engine, one_moment
from buffer_pipeline.drain import drain_matured
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline.inputs import require_time
from buffer_pipeline.marketplace import Marketplace, Tally
from buffer_pipeline.outbox import dispatch
from buffer_pipeline.policy import Policy
from buffer_pipeline.reconcile import Violation, reconcile, require_empty
from buffer_pipeline.reports import due_holds, list_holds

SOURCE: Final = "simulation"
"""Of the batches that its hourly job releases."""

OUTAGE_HOURS_MIN: Final = 3
OUTAGE_HOURS_MAX: Final = 48
_HOURS_BETWEEN_OUTAGES: Final = 10 * 24
"""On average."""

_HOURS_A_DAY: Final = 24
_DISPATCH_LIMIT: Final = 10_000


@dataclass
class Simulation:
    """What came of it, as far as it went. `violations` are of the last check, and end it."""

    start: datetime
    seed: int
    days: int
    ticks: int = 0
    releases: int = 0
    outages: int = 0
    hours_missed: int = 0
    checks: int = 0
    violations: list[Violation] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    @property
    def now(self) -> datetime:
        """The simulated clock."""
        return self.start + self.ticks * HOUR


def simulate(
    engine: Engine,
    *,
    start: datetime,
    days: int,
    seed: int,
    policy: Policy | None = None,
    after_tick: Callable[[], None] = lambda: None,
) -> Simulation:
    """Play `days` days of a marketplace from `start`, which is a full hour, on empty books.

    Each tick is an hour: what people do in it, in one transaction, and at its end the release run,
    unless the hourly job is down then; the run behind an outage must leave nothing that is due. Each
    day all of the books is proved, and the first violation ends the simulation. Nobody is told of
    anything: notifications count as dispatched to no endpoint. The same seed writes the same rows from
    the same start, but for the order of the notifications' ids. What was played stays, also when an
    exception cuts it short.

    Raises:
        InvalidInput: a start that is no full hour, or less than a day.
        Refused: the books hold anything; nothing was written.
    """
    start = require_full_hour("start", start)
    if days < 1:
        raise InvalidInput(f"days {days}: must be at least 1")
    with engine.connect() as connection:
        require_empty(connection, "a simulation")
    # A simulation that a power failure cuts short is begun anew in any case.
    quick = make_engine(engine.url, synchronous_commit=False)
    try:
        return _play(
            quick,
            Marketplace(start=start, seed=seed, policy=policy),
            Simulation(start=start, seed=seed, days=days),
            after_tick=after_tick,
        )
    finally:
        quick.dispose()


def require_full_hour(name: str, moment: datetime) -> datetime:
    """Return the moment, in UTC, when it is a full hour.

    Raises:
        InvalidInput: it is none, or has no time zone.
    """
    moment = require_time(name, moment)
    if moment != hour_of(moment):
        raise InvalidInput(f"{name} {moment.isoformat()}: must be a full hour")
    return moment


def _play(
    engine: Engine, market: Marketplace, simulation: Simulation, *, after_tick: Callable[[], None]
) -> Simulation:
    simulation.tally = market.tally
    hours = simulation.days * _HOURS_A_DAY
    missed = {hour for outage in outages(simulation.seed, hours=hours) for hour in outage}
    for number in range(hours):
        with engine.begin() as connection:
            market.play_hour(connection, hour=simulation.now)
        simulation.ticks += 1
        if number in missed:
            simulation.hours_missed += 1
        else:
            _release(engine, simulation, catches_up=number - 1 in missed)
        if simulation.ticks % _HOURS_A_DAY == 0:
            _prove(engine, simulation)
        after_tick()
        if simulation.violations:
            break
    return simulation


def outages(seed: int, *, hours: int) -> list[range]:
    """Return when the hourly job is down: some hours to two days, each over before the end."""
    chance = random.Random(f"outages {seed}")  # noqa: S311 - the same each time, not a secret
    found: list[range] = []
    begin = 0
    while True:
        # An hour at least between two, in which a run catches up.
        begin += 1 + int(chance.expovariate(1 / _HOURS_BETWEEN_OUTAGES))
        outage = range(begin, begin + chance.randint(OUTAGE_HOURS_MIN, OUTAGE_HOURS_MAX))
        if outage.stop >= hours:
            return found
        found.append(outage)
        begin = outage.stop


def _release(engine: Engine, simulation: Simulation, *, catches_up: bool) -> None:
    now = simulation.now
    drain_matured(engine, due_by=now, source=SOURCE, clock=lambda _: now)
    simulation.releases += 1
    if catches_up:
        simulation.outages += 1
        with engine.connect() as connection:
            if due_holds(connection, due_by=now).holds:
                left = list_holds(connection, due_by=now)
                simulation.violations.append(Violation(invariant="one_run_catches_up", rows=left))


def _prove(engine: Engine, simulation: Simulation) -> None:
    with one_moment(engine) as connection:
        simulation.violations += reconcile(connection)
    simulation.checks += 1
    with engine.begin() as connection:
        while dispatch(connection, [], batch_limit=_DISPATCH_LIMIT, now=simulation.now).notifications:
            pass
