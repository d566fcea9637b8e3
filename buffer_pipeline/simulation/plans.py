"""What a marketplace will do and when, its random draws, and the counts of what the books don't record."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Final, Protocol

from sqlalchemy import Connection

DAY: Final = timedelta(days=1)


class Act(Protocol):
    """Something that somebody does at a moment."""

    def __call__(self, connection: Connection, *, now: datetime) -> None: ...


@dataclass
class MarketplaceCounts:
    """What happened that the books do not record."""

    repeated: int = 0
    """Earnings that the platform sent again, which wrote nothing."""
    refunded_in_part: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """How often a verb refused, by the refusal's name."""


class Plans:
    """The acts that are planned, in order of time, and the random draws of a seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - a reproducible simulation, not a secret
        self.late_chance = random.Random(f"late {seed}")  # noqa: S311 - as above
        """A second generator. Draws from it do not change what `chance` returns."""
        self.owner_chance = random.Random(f"owners {seed}")  # noqa: S311 - as above
        """A third one, for freezes of owners."""
        self.move_chance = random.Random(f"moves {seed}")  # noqa: S311 - as above
        """As `late_chance`, for moved release dates."""
        self.share_chance = random.Random(f"shares {seed}")  # noqa: S311 - as above
        """A fourth one, for earnings with shares."""
        self.part_chance = random.Random(f"parts {seed}")  # noqa: S311 - as above
        """As `late_chance`, for parts that are released early."""
        self.debt_chance = random.Random(f"debts {seed}")  # noqa: S311 - as above
        """As `late_chance`, for what is taken back and for debts."""
        self.payout_chance = random.Random(f"payouts {seed}")  # noqa: S311 - as above
        """As `late_chance`, for payouts."""
        self._plans: list[tuple[datetime, int, Act]] = []
        self._order = count()

    def add(self, moment: datetime, act: Act) -> None:
        """Plan an act. Acts of the same moment keep the order in which they were planned."""
        heappush(self._plans, (moment, next(self._order), act))

    def take_until(self, end: datetime) -> Iterator[tuple[datetime, Act]]:
        """Yield the acts before `end`, also those that are planned meanwhile, and forget them."""
        while self._plans and self._plans[0][0] < end:
            moment, _, act = heappop(self._plans)
            yield moment, act

    def within(self, begin: datetime, length: timedelta, *, after: timedelta = timedelta(0)) -> datetime:
        """Return a random second from `begin + after` to before `begin + length`."""
        first = int(after.total_seconds())
        last = max(first, int(length.total_seconds()) - 1)
        return begin + timedelta(seconds=self.chance.randint(first, last))

    def happens(self, percent: int, chance: random.Random | None = None) -> bool:
        """Return True in `percent` of a hundred draws."""
        return (chance or self.chance).randrange(100) < percent
