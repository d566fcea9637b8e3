"""The oracle's holds, backjobs, wallets and lines."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState
from buffer_pipeline.intake import Earning
from buffer_pipeline_tests.stress.record import Attempt


class FreezeName(NamedTuple):
    """A freeze: an admin's or risk's by its own id, a backjob's by the backjob's id."""

    kind: FreezeKind
    id: int


class Line(NamedTuple):
    """A line of the books, without ids."""

    type: str
    from_owner: str | None
    to_owner: str | None
    currency: str
    amount_minor: int
    recorded_at: datetime
    hold_id: int | None = None
    backjob_id: int | None = None
    reference: str | None = None
    release_date: datetime | None = None


@dataclass
class Batch:
    """A release batch in the books: the holds of its lines, and their time."""

    hold_ids: list[int]
    recorded_at: datetime


@dataclass(kw_only=True)
class OracleHold:
    """A hold: its content, the amount that it still holds, and its open freezes."""

    hold_id: int
    earning: Earning
    amount_minor: int
    release_date: datetime
    held_minor: int
    added_by: Attempt = field(repr=False)
    refunds: int = 0
    parts: int = 0
    """How many parts were refunded, and how many released."""
    state: HoldState = HoldState.BUFFERED
    freezes: set[FreezeName] = field(default_factory=set)
    opened_at: dict[FreezeName, datetime] = field(default_factory=dict)
    """When each of its freezes was opened, including closed ones, by the caller's clock."""


@dataclass(kw_only=True)
class OracleBackjob:
    """A backjob and the holds that it froze, by id."""

    backjob_id: int
    job: str
    hold_ids: list[int]
    state: BackjobState = BackjobState.OPEN
    refunded_minor: int | None = None


@dataclass
class OracleWallet:
    """One owner's money in one currency."""

    balance_minor: int = 0
    pending_minor: int = 0
