"""Simulate days of a marketplace on empty books, hour by hour, by the real verbs and the real release run."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import Engine

from buffer_pipeline.audit.reconcile import Violation, reconcile, require_empty
from buffer_pipeline.database import make_engine, snapshot
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline.inputs import require_time
from buffer_pipeline.notifications.outbox import dispatch
from buffer_pipeline.policy import Policy
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.reports.due import due_holds, list_due
from buffer_pipeline.simulation.marketplace import Marketplace
from buffer_pipeline.simulation.plans import MarketplaceCounts

SOURCE: Final = "simulation"
"""The `source` of the batches that the simulated hourly job releases."""

OUTAGE_HOURS_MIN: Final = 3
OUTAGE_HOURS_MAX: Final = 48
_HOURS_BETWEEN_OUTAGES: Final = 10 * 24
"""On average."""

_HOURS_A_DAY: Final = 24
_DISPATCH_LIMIT: Final = 10_000


@dataclass
class Simulation:
    """A simulation as far as it went. `violations` are those of the last check; any of them ends it."""

    start: datetime
    seed: int
    days: int
    ticks: int = 0
    releases: int = 0
    outages: int = 0
    hours_missed: int = 0
    checks: int = 0
    violations: list[Violation] = field(default_factory=list)
    counts: MarketplaceCounts = field(default_factory=MarketplaceCounts)

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
    """Simulate `days` days of a marketplace from `start`, which is a full hour, on empty books.

    Each tick is an hour. What people do in it is one transaction. The release run follows at its end,
    unless the hourly job is down then. The first run after an outage must leave nothing that is due.

    The whole books are checked each day, and the first violation ends the simulation. No notification is
    sent: all are dispatched to no endpoint. The same seed and start write the same rows, except for the
    order of the notifications' ids. Hours that were played stay in the books, also after an exception.

    Raises:
        InvalidInput: `start` is not a full hour, or `days` is below 1.
        Refused: the books are not empty; nothing was written.
    """
    start = require_full_hour("start", start)
    if days < 1:
        raise InvalidInput(f"days {days}: must be at least 1")
    with engine.connect() as connection:
        require_empty(connection, "a simulation")
    # Faster commits. After a power failure the simulation is started again on empty books anyway.
    quick = make_engine(engine.url, synchronous_commit=False)
    try:
        return _play(
            quick,
            Marketplace(start=start, seed=seed, policy=policy, divides=True),
            Simulation(start=start, seed=seed, days=days),
            after_tick=after_tick,
        )
    finally:
        quick.dispose()


def require_full_hour(name: str, moment: datetime) -> datetime:
    """Return the moment in UTC if it is a full hour.

    Raises:
        InvalidInput: it is not, or it has no time zone.
    """
    moment = require_time(name, moment)
    if moment != hour_of(moment):
        raise InvalidInput(f"{name} {moment.isoformat()}: must be a full hour")
    return moment


def _play(
    engine: Engine, market: Marketplace, simulation: Simulation, *, after_tick: Callable[[], None]
) -> Simulation:
    simulation.counts = market.counts
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
            _check(engine, simulation)
        after_tick()
        if simulation.violations:
            break
    return simulation


def outages(seed: int, *, hours: int) -> list[range]:
    """Return the hours in which the hourly job is down, one range an outage: 3 hours to 2 days each.

    Every outage ends before the last hour.
    """
    chance = random.Random(f"outages {seed}")  # noqa: S311 - the same each time, not a secret
    found: list[range] = []
    begin = 0
    while True:
        # At least one hour between two outages, so that a run can catch up.
        begin += 1 + int(chance.expovariate(1 / _HOURS_BETWEEN_OUTAGES))
        outage = range(begin, begin + chance.randint(OUTAGE_HOURS_MIN, OUTAGE_HOURS_MAX))
        if outage.stop >= hours:
            return found
        found.append(outage)
        begin = outage.stop


def _release(engine: Engine, simulation: Simulation, *, catches_up: bool) -> None:
    now = simulation.now
    release_all_due(engine, due_by=now, source=SOURCE, clock=lambda _: now)
    simulation.releases += 1
    if catches_up:
        simulation.outages += 1
        with engine.connect() as connection:
            if due_holds(connection, due_by=now).holds:
                left = list_due(connection, due_by=now)
                simulation.violations.append(Violation(invariant="one_run_catches_up", rows=left))


def _check(engine: Engine, simulation: Simulation) -> None:
    with snapshot(engine) as connection:
        simulation.violations += reconcile(connection)
    simulation.checks += 1
    with engine.begin() as connection:
        while dispatch(connection, [], batch_limit=_DISPATCH_LIMIT, now=simulation.now).notifications:
            pass
