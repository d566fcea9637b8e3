"""The records of the model: wallets, holds, freezes, backjobs, lines and messages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline_tests.support.model.terms import ModelRule

Account = tuple[str, str | None]
"""A kind of account, and its owner if it is a wallet's."""


class Line(NamedTuple):
    """A line of the books: a transaction."""

    type: str
    source: Account
    target: Account
    currency: str
    amount_minor: int
    recorded_at: datetime
    hold_id: int | None = None
    backjob_id: int | None = None
    release_date: datetime | None = None
    reference: str | None = None
    debt_id: int | None = None
    payout_id: int | None = None


class ModelNotification(NamedTuple):
    """A message owed to an owner."""

    type: str
    owner: str
    created_at: datetime
    hold_id: int | None = None
    backjob_id: int | None = None
    currency: str | None = None
    amount_minor: int | None = None
    release_date: datetime | None = None
    left_minor: int | None = None
    clawback_id: int | None = None
    payout_id: int | None = None


class ModelRelease(NamedTuple):
    """What an early release took from each hold, which holds still have a rest, and whether nothing is left.

    Of two shares with one unit each, a part can take all of one and nothing of the other.
    """

    given: dict[int, int]
    parts: frozenset[int]
    whole: bool


@dataclass(kw_only=True)
class ModelFreeze:
    """A reason why a hold may not be released."""

    freeze_id: int
    hold_id: int
    kind: FreezeKind
    backjob_id: int | None = None
    owner_freeze_id: int | None = None
    earning_id: int | None = None
    """The earning's own hold, if the freeze was opened by its id."""
    earning_freeze_id: int | None = None
    """For the other shares, the first freeze of the earning."""
    is_open: bool = True


@dataclass(kw_only=True)
class ModelRefund:
    """A refund by an admin: its holds, its amount, and how much more was possible."""

    content: tuple[int, str, str]
    """Hold, caller and reason."""
    hold_ids: tuple[int, ...]
    amount_minor: int
    left_minor: int


@dataclass(kw_only=True)
class ModelOwnerFreeze:
    """A freeze of an owner, and the number of holds that its opening and closing changed."""

    owner_freeze_id: int
    owner: str
    kind: FreezeKind
    opened_at: datetime
    holds_frozen: int
    holds_resumed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Intake:
    """An earning, as a platform gives it."""

    reference: str
    job: str
    payee: str
    payer: str
    amount: str
    currency: str
    title: str = ""
    held_at: datetime | None = None
    release_date: datetime | None = None
    shares: tuple[Share, ...] = ()
    rule: str | None = None


@dataclass(kw_only=True, eq=False)
class ModelHold:
    """An earning, or a share of one, for one owner. `held_minor` is what it still holds."""

    hold_id: int
    intake: Intake
    kind: ShareKind
    owner: str
    earning: "ModelEarning" = field(repr=False)
    amount_minor: int
    held_at: datetime
    original_release_date: datetime
    release_date: datetime
    held_minor: int
    refunded_minor: int = 0
    released_minor: int = 0
    settled: HoldState | None = None
    settled_at: datetime | None = None
    clawed_back_minor: int = 0
    freezes: list[ModelFreeze] = field(default_factory=list)

    @property
    def terms(self) -> Mapping[str, Any]:
        """The terms of its rule. Missing ones are the settings'."""
        return {} if self.earning.rule is None else self.earning.rule.terms

    @property
    def is_kept(self) -> bool:
        """True if a refund takes nothing from it."""
        return self.kind is ShareKind.FEE and self.terms.get("fee_on_refund") == "keep"

    @property
    def state(self) -> HoldState:
        """The final state, or else FROZEN while any freeze is open."""
        if self.settled is not None:
            return self.settled
        return HoldState.FROZEN if any(freeze.is_open for freeze in self.freezes) else HoldState.BUFFERED


@dataclass(kw_only=True, eq=False)
class ModelEarning:
    """The holds of one reference: the payee's first, then those of the other shares."""

    amount_minor: int
    rule: ModelRule | None
    holds: list[ModelHold] = field(default_factory=list)

    @property
    def first(self) -> ModelHold:
        """The payee's own hold."""
        return self.holds[0]


@dataclass(kw_only=True)
class ModelBackjob:
    """A client's request, and the holds that it froze."""

    backjob_id: int
    job: str
    holds: list[ModelHold]
    state: BackjobState = BackjobState.OPEN
    refunded_minor: int | None = None


@dataclass
class ModelWallet:
    """One owner's money in one currency."""

    balance_minor: int = 0
    pending_minor: int = 0


@dataclass(kw_only=True)
class ModelClawback:
    """What a claw-back took from balances, and the debts that it left."""

    clawback_id: int
    named_id: int
    content: tuple[object, ...]
    taken_minor: int
    debts: list["ModelDebt"]
    owed_minor: int


@dataclass(kw_only=True)
class ModelDebt:
    """What an owner owes for a hold. Without a creditor it is to a bank."""

    debt_id: int
    clawback_id: int
    hold: ModelHold
    owner: str
    creditor: str | None
    currency: str
    amount_minor: int
    outstanding_minor: int
    opened_at: datetime
    is_forgiven: bool = False


@dataclass(kw_only=True)
class ModelDestination:
    """A version of where an owner is paid."""

    method: str
    account: str
    set_at: datetime


@dataclass(kw_only=True)
class ModelPayout:
    """A payout."""

    payout_id: int
    owner: str
    currency: str
    amount_minor: int
    everything: bool
    by: str
    override_reason: str | None
    requested_at: datetime
    state: str = "REQUESTED"
    batch: "ModelPayoutBatch | None" = None
    destination: ModelDestination | None = None
    """Where its batch sends it."""
    was_paid: bool = False
    cancelled_with: tuple[str, str] | None = None


@dataclass(kw_only=True, eq=False)
class ModelPayoutBatch:
    """A batch of payouts. A cancelled one keeps the number and the amount of what was in it."""

    payout_batch_id: int
    currency: str
    method: str
    made_by: str
    four_eyes: bool
    payouts: int
    amount_minor: int
    state: str = "MADE"
    done_by: dict[str, tuple[object, ...]] = field(default_factory=dict)
    """State -> who brought it there, and for a cancellation why."""
    files: set[bytes] = field(default_factory=set)
