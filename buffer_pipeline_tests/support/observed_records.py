"""What is in the real books at one moment."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState
from buffer_pipeline.shares import ShareKind
from buffer_pipeline_tests.support.model.records import Line, ModelNotification


class SeenWallet(NamedTuple):
    """A wallet's row, the sum of its unsettled holds, and the sum of its lines."""

    balance_minor: int
    pending_minor: int
    debt_minor: int
    waiting_minor: int
    balance_by_lines_minor: int
    pending_by_lines_minor: int


class SeenHold(NamedTuple):
    """A hold with its present state."""

    reference: str
    state: HoldState
    amount_minor: int
    refunded_minor: int
    released_minor: int
    release_date: datetime
    settled_at: datetime | None
    owner: str | None
    kind: ShareKind
    earning_id: int | None
    """The first share's id, for the other shares."""
    earning_minor: int | None
    """The whole earning, for a first share with others."""
    rule: str | None
    rule_version: int | None


class SeenFreeze(NamedTuple):
    """A freeze, and whether it is open."""

    hold_id: int
    kind: FreezeKind
    backjob_id: int | None
    owner_freeze_id: int | None
    earning_id: int | None
    earning_freeze_id: int | None
    is_open: bool


class SeenOwnerFreeze(NamedTuple):
    """A freeze of an owner."""

    owner: str
    kind: FreezeKind
    holds_frozen: int
    holds_resumed: int | None


class SeenBackjob(NamedTuple):
    """A backjob."""

    job: str
    state: BackjobState
    refunded_minor: int | None


class SeenDebt(NamedTuple):
    """A debt. Without a creditor it is to a bank."""

    hold_id: int
    owner: str | None
    creditor: str | None
    amount_minor: int
    outstanding_minor: int
    is_open: bool
    is_forgiven: bool


class SeenPayout(NamedTuple):
    """A payout."""

    owner: str | None
    currency: str
    amount_minor: int
    state: str
    payout_batch_id: int | None


class SeenPayoutBatch(NamedTuple):
    """A batch of payouts, and what is in it."""

    currency: str
    method: str
    state: str
    payouts: int
    amount_minor: int
    four_eyes: bool


@dataclass(frozen=True, kw_only=True)
class Seen:
    """All books at one moment. `lines` and `notifications` are those since the previous moment, in order."""

    digests: dict[str, str | None]
    wallets: dict[tuple[str, str], SeenWallet]
    holds: dict[int, SeenHold]
    freezes: dict[int, SeenFreeze]
    owner_freezes: dict[int, SeenOwnerFreeze]
    backjobs: dict[int, SeenBackjob]
    debts: dict[int, SeenDebt]
    payouts: dict[int, SeenPayout]
    payout_batches: dict[int, SeenPayoutBatch]
    sums_minor: dict[str, int]
    """By currency: the sum of all wallets' rows and of the system accounts' lines."""
    lines: list[tuple[Line, int | None, int | None]]
    """Each with the balance after it, and that of the wallet that it leaves if it enters another."""
    batches: dict[int, int]
    """Hold -> batch, for holds released since the previous moment."""
    notifications: list[ModelNotification]
    last_line: int
    last_notification: int
