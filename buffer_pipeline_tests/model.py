"""The rules of the books a second time, in plain Python: no database, and nothing of the verbs' own code.

The state machine (test_machine.py) asks the same of this and of the real books, and the two must agree. So
it is written from the rules and not from the statements, as plainly as they can be said. What breaks a rule
raises the refusal of the books' own class; its message is the reason in a few words. Ids are those that the
real books gave; their order says which hold came first. Amounts are minor units, but for those that come in:
they are text, as a platform writes them.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple

from buffer_pipeline.errors import (
    BackjobRefused,
    FreezeRefused,
    InsufficientFunds,
    InvalidInput,
    JobConflict,
    NotAllowed,
    NotFound,
    ReferenceConflict,
    StateRefused,
    WindowClosed,
)
from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState

PLACES: Final = {"PHP": 2, "JPY": 0, "KWD": 3}
BUFFER: Final = timedelta(days=7)
COOLDOWN: Final = timedelta(hours=24)
MAX_BACKJOBS: Final = 3

Account = tuple[str, str | None]
"""A kind of account, and its owner where it is a wallet's."""

ESCROW: Final[Account] = ("ESCROW", None)
EXTERNAL: Final[Account] = ("EXTERNAL", None)


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


class Told(NamedTuple):
    """A message that is owed to an owner: a notification."""

    type: str
    owner: str
    created_at: datetime
    hold_id: int | None = None
    backjob_id: int | None = None
    currency: str | None = None
    amount_minor: int | None = None
    release_date: datetime | None = None


@dataclass(kw_only=True)
class ModelFreeze:
    """A reason that a hold may not be released."""

    freeze_id: int
    hold_id: int
    kind: FreezeKind
    backjob_id: int | None = None
    stands: bool = True


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An earning, as a platform states it."""

    reference: str
    job: str
    payee: str
    payer: str
    amount: str
    currency: str
    title: str = ""
    held_at: datetime | None = None
    release_date: datetime | None = None


@dataclass(kw_only=True)
class ModelHold:
    """One payment to one payee; `held_minor` is what it still holds."""

    hold_id: int
    asked: Asked
    amount_minor: int
    held_at: datetime
    original_release_date: datetime
    release_date: datetime
    held_minor: int
    refunded_minor: int = 0
    settled: HoldState | None = None
    settled_at: datetime | None = None
    freezes: list[ModelFreeze] = field(default_factory=list)

    @property
    def state(self) -> HoldState:
        """Where it is: settled, or else frozen as long as any freeze stands."""
        if self.settled is not None:
            return self.settled
        return HoldState.FROZEN if any(freeze.stands for freeze in self.freezes) else HoldState.BUFFERED


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


class Model:
    """The books. Each verb either does all that it says or raises and does nothing."""

    def __init__(self) -> None:
        self.jobs: dict[str, str] = {}
        """The payer of each."""
        self.wallets: dict[tuple[str, str], ModelWallet] = {}
        self.holds: dict[str, ModelHold] = {}
        self.backjobs: dict[int, ModelBackjob] = {}
        self.freezes: dict[int, ModelFreeze] = {}
        self.movements: dict[str, tuple[str, str, str, int]] = {}
        self.refunds: dict[str, tuple[tuple[int, str, str], int]] = {}
        """reference -> hold, by whom and why, and how much; no reference is one of a movement too."""
        self.keys: dict[tuple[str, str], tuple[tuple[object, ...], int]] = {}
        """What is asked and its reference -> what was said, and the id of the backjob or freeze."""
        self.lines: list[Line] = []
        self.told: list[Told] = []

    # ---- what there is

    def find_hold(self, hold_id: int) -> ModelHold | None:
        """Return the hold with this id."""
        return next((hold for hold in self.holds.values() if hold.hold_id == hold_id), None)

    def holds_of(self, job: str) -> list[ModelHold]:
        """Return the holds of a job, the earliest first."""
        return _in_order(hold for hold in self.holds.values() if hold.asked.job == job)

    def unsettled(self) -> list[ModelHold]:
        """Return what still waits."""
        return _in_order(hold for hold in self.holds.values() if hold.settled is None)

    def due(self, by: datetime) -> list[ModelHold]:
        """Return what is matured: no freeze stands, and the release date is reached."""
        return [
            hold for hold in self.unsettled() if hold.state is HoldState.BUFFERED and hold.release_date <= by
        ]

    def _known(self, kind: str, reference: str | None, content: tuple[object, ...]) -> int | None:
        """Return the id that a reference stands for, if it is said again with the same content."""
        if reference is None or (kind, reference) not in self.keys:
            return None
        first, found = self.keys[kind, reference]
        if first != content:
            raise ReferenceConflict("stands for another")
        return found

    def _keep(self, kind: str, reference: str | None, content: tuple[object, ...], found: int) -> None:
        if reference is not None:
            self.keys[kind, reference] = content, found

    # ---- holding

    def add(
        self, asked: Asked, *, now: datetime, hold_id: int | None, freeze_id: int | None = None
    ) -> ModelHold:
        """Hold an earning, or return the one that its reference stands for.

        `freeze_id` is the freeze of the open backjob on its job, if the books gave one.
        """
        if asked.payer == asked.payee:
            raise InvalidInput("pays themselves")
        amount_minor = minor(asked.amount, asked.currency)
        held_at = now if asked.held_at is None else asked.held_at
        release_date = held_at + BUFFER if asked.release_date is None else asked.release_date
        if release_date < held_at:
            raise InvalidInput("matures before it is held")
        first = self.holds.get(asked.reference)
        if first is not None:
            if not _repeats(asked, amount_minor, first):
                raise ReferenceConflict("stands for another earning")
            return first
        if self.jobs.setdefault(asked.job, asked.payer) != asked.payer:
            raise JobConflict("another's job")

        assert hold_id is not None, "the books gave an id"
        hold = ModelHold(
            hold_id=hold_id,
            asked=asked,
            amount_minor=amount_minor,
            held_at=held_at,
            original_release_date=release_date,
            release_date=release_date,
            held_minor=amount_minor,
        )
        self.holds[asked.reference] = hold
        self._wallet(asked.payer, asked.currency)
        self._wallet(asked.payee, asked.currency).pending_minor += amount_minor
        self.lines.append(
            Line(
                "PENDING_EARNING",
                ESCROW,
                ("PENDING_EARNINGS", asked.payee),
                asked.currency,
                amount_minor,
                now,
                hold_id=hold_id,
            )
        )
        self._tell("PAYMENT_PENDING", asked.payee, now, hold, amount_minor, release_date=release_date)
        backjob = self.open_backjob(asked.job)
        if backjob is not None and now < release_date:
            assert freeze_id is not None, "the books gave an id"
            self._freeze(hold, freeze_id, FreezeKind.BACKJOB, now=now, backjob_id=backjob.backjob_id)
            backjob.holds.append(hold)
        return hold

    # ---- releasing

    def release_due(
        self,
        *,
        by: datetime,
        now: datetime,
        limit: int | None,
        released: Collection[int],
    ) -> None:
        """Release what is due; of which hours is a rule, which of an hour is the books' to choose.

        `released` are the ids that they chose.
        """
        due = self.due(by)
        chosen = [hold for hold in due if hold.hold_id in released]
        assert len(chosen) == len(released), "released what was not due"
        assert len(chosen) == (len(due) if limit is None else min(limit, len(due))), "released too few"
        left = [hold for hold in due if hold.hold_id not in released]
        if chosen and left:
            latest = max(_hour(hold.release_date) for hold in chosen)
            assert latest <= min(_hour(hold.release_date) for hold in left), "an older hour waits"
        for hold in chosen:
            self._release(hold, now=now)

    def release_early(
        self,
        *,
        by: str,
        now: datetime,
        hold_id: int | None = None,
        job: str | None = None,
        as_admin: bool = False,
    ) -> list[ModelHold]:
        """Release a hold, or what a job has in the buffer, all or nothing."""
        if job is not None:
            holds = self.holds_of(job)
            if any(hold.state is HoldState.BUFFERED for hold in holds):
                holds = [hold for hold in holds if hold.settled is None]
        else:
            holds = [hold for hold in self.holds.values() if hold.hold_id == hold_id]
        if not holds:
            raise NotFound("no such hold" if job is None else "no hold of such a job")
        for hold in holds:
            if hold.state is not HoldState.BUFFERED:
                raise _state_refused(hold)
            if not as_admin and by != hold.asked.payer:
                raise NotAllowed("neither payer nor admin")
        for hold in holds:
            self._release(hold, now=now)
        return holds

    def _release(self, hold: ModelHold, *, now: datetime) -> None:
        asked, amount_minor = hold.asked, hold.held_minor
        wallet = self._wallet(asked.payee, asked.currency)
        wallet.pending_minor -= amount_minor
        wallet.balance_minor += amount_minor
        hold.held_minor = 0
        hold.settled, hold.settled_at = HoldState.RELEASED, now
        self.lines.append(
            Line(
                "EARNING",
                ("PENDING_EARNINGS", asked.payee),
                ("BALANCE", asked.payee),
                asked.currency,
                amount_minor,
                now,
                hold_id=hold.hold_id,
                release_date=hold.release_date,
            )
        )
        self._tell("PAYMENT_RELEASED", asked.payee, now, hold, amount_minor)

    # ---- backjobs

    def open_backjob(self, job: str) -> ModelBackjob | None:
        """Return the job's open backjob."""
        of_job = (backjob for backjob in self.backjobs.values() if backjob.job == job)
        return next((backjob for backjob in of_job if backjob.state is BackjobState.OPEN), None)

    def request_backjob(
        self,
        *,
        job: str,
        by: str,
        reason: str,
        now: datetime,
        payer: str | None,
        reference: str | None,
        backjob_id: int | None,
        freeze_ids: dict[int, int],
    ) -> ModelBackjob:
        """Freeze what the job has in the buffer and whose window is open. Freezes' ids are by hold."""
        known = self._known("request", reference, (job, by, reason))
        if known is not None:
            return self.backjobs[known]
        holds = self.holds_of(job)
        if not holds:
            raise NotFound("no hold of such a job")
        if payer not in (None, self.jobs[job]):
            raise NotAllowed("another's job")
        waiting = [hold for hold in holds if hold.settled is None]
        if not waiting:
            raise WindowClosed("all is settled")
        states = [backjob.state for backjob in self.backjobs.values() if backjob.job == job]
        if BackjobState.OPEN in states:
            raise BackjobRefused("one is open")
        if states.count(BackjobState.REJECTED) >= MAX_BACKJOBS:
            raise BackjobRefused("enough were rejected")
        in_window = [hold for hold in waiting if now < hold.release_date]
        if not in_window:
            raise WindowClosed("the release date is reached")

        assert backjob_id is not None, "the books gave an id"
        for hold in in_window:
            self._freeze(hold, freeze_ids[hold.hold_id], FreezeKind.BACKJOB, now=now, backjob_id=backjob_id)
        for payee in {hold.asked.payee for hold in in_window}:
            self.told.append(Told("BACKJOB_RECEIVED", payee, now, backjob_id=backjob_id))
        self.backjobs[backjob_id] = ModelBackjob(backjob_id=backjob_id, job=job, holds=in_window)
        self._keep("request", reference, (job, by, reason), backjob_id)
        return self.backjobs[backjob_id]

    def decide_backjob(
        self,
        state: BackjobState,
        *,
        backjob_id: int,
        by: str,
        reason: str,
        now: datetime,
        reference: str | None,
        amount: str | None = None,
        hold_ids: Collection[int] | None = None,
    ) -> ModelBackjob:
        """Reject, withdraw or approve a backjob."""
        if hold_ids is not None and not hold_ids:
            raise InvalidInput("names no hold")
        content = (state, backjob_id, by, reason)
        known = self._known("decision", reference, content)
        if known is not None:
            return self.backjobs[known]
        backjob = self._open_backjob(backjob_id)
        if state is BackjobState.APPROVED:
            self._approve_backjob(backjob, now=now, amount=amount, hold_ids=hold_ids)
        elif state is BackjobState.REJECTED:
            self._reject_backjob(backjob, now=now)
        else:
            self._withdraw_backjob(backjob, now=now)
        self._keep("decision", reference, content, backjob_id)
        return backjob

    def _reject_backjob(self, backjob: ModelBackjob, *, now: datetime) -> None:
        """Let go what no other freeze covers, a day after its date, or after now where that has passed."""
        backjob.state = BackjobState.REJECTED
        for hold in self._thaw(backjob):
            hold.release_date = max(hold.release_date, now) + COOLDOWN
            self._tell_resumed(hold, now, backjob.backjob_id)
        for owner in _concerned(backjob):
            self.told.append(Told("BACKJOB_REJECTED", owner, now, backjob_id=backjob.backjob_id))

    def _withdraw_backjob(self, backjob: ModelBackjob, *, now: datetime) -> None:
        """Let go what no other freeze covers, on its own date."""
        backjob.state = BackjobState.WITHDRAWN
        for hold in self._thaw(backjob):
            self._tell_resumed(hold, now, backjob.backjob_id)

    def _approve_backjob(
        self, backjob: ModelBackjob, *, now: datetime, amount: str | None, hold_ids: Collection[int] | None
    ) -> None:
        """Give back what is held, or by those holds, or a part of it in proportion; the rest waits on."""
        holds = _in_order(backjob.holds)
        if any(freeze.stands and freeze.backjob_id is None for hold in holds for freeze in hold.freezes):
            raise FreezeRefused("another freeze stands")
        named = [hold for hold in holds if hold_ids is None or hold.hold_id in hold_ids]
        if hold_ids is not None and len(named) < len(set(hold_ids)):
            raise NotFound("freezes no such hold")
        held = [hold.held_minor if hold in named else 0 for hold in holds]
        shares = held
        if amount is not None:
            currencies = {hold.asked.currency for hold in named}
            if len(currencies) > 1:
                raise InvalidInput("a part of several currencies")
            amount_minor = minor(amount, currencies.pop())
            if amount_minor > sum(held):
                raise InsufficientFunds("more than is held")
            shares = largest_remainder(amount_minor, held)

        backjob.state = BackjobState.APPROVED
        backjob.refunded_minor = sum(shares)
        self._thaw(backjob)
        for hold, share in zip(holds, shares, strict=True):
            if share:
                self._refund(hold, share, now=now, backjob_id=backjob.backjob_id)
            if hold.held_minor:
                self._tell_resumed(hold, now, backjob.backjob_id)
        for owner in _concerned(backjob):
            self.told.append(Told("BACKJOB_APPROVED", owner, now, backjob_id=backjob.backjob_id))

    def _refund(
        self,
        hold: ModelHold,
        amount_minor: int,
        *,
        now: datetime,
        backjob_id: int | None = None,
        reference: str | None = None,
    ) -> None:
        asked = hold.asked
        self._wallet(asked.payee, asked.currency).pending_minor -= amount_minor
        self._wallet(asked.payer, asked.currency).balance_minor += amount_minor
        hold.held_minor -= amount_minor
        hold.refunded_minor += amount_minor
        if hold.held_minor == 0:
            hold.settled, hold.settled_at = HoldState.REFUNDED, now
        self.lines.append(
            Line(
                "REFUND",
                ("PENDING_EARNINGS", asked.payee),
                ("BALANCE", asked.payer),
                asked.currency,
                amount_minor,
                now,
                hold_id=hold.hold_id,
                backjob_id=backjob_id,
                release_date=hold.release_date,
                reference=reference,
            )
        )
        for owner in (asked.payee, asked.payer):
            self._tell("PAYMENT_REFUNDED", owner, now, hold, amount_minor, backjob_id=backjob_id)

    def _open_backjob(self, backjob_id: int) -> ModelBackjob:
        backjob = self.backjobs.get(backjob_id)
        if backjob is None:
            raise NotFound("no such backjob")
        if backjob.state is not BackjobState.OPEN:
            raise BackjobRefused("decided already")
        return backjob

    def _thaw(self, backjob: ModelBackjob) -> list[ModelHold]:
        """Close a backjob's freezes and return the holds that none covers any more."""
        for hold in backjob.holds:
            for freeze in hold.freezes:
                if freeze.backjob_id == backjob.backjob_id:
                    freeze.stands = False
        return [hold for hold in backjob.holds if hold.state is HoldState.BUFFERED]

    # ---- refunds by an admin

    def refund_hold(
        self, *, hold_id: int, by: str, reason: str, reference: str, now: datetime, amount: str | None
    ) -> ModelHold:
        """Give back what a frozen hold holds, and close its freezes; or a part, and it stays frozen."""
        hold = self.find_hold(hold_id)
        if hold is None:
            raise NotFound("no such hold")
        amount_minor = None if amount is None else minor(amount, hold.asked.currency)
        if reference in self.refunds:
            content, refunded_minor = self.refunds[reference]
            # Without an amount all that was left was meant, so no refund can come after it.
            of_it = [known for known, (said, _) in self.refunds.items() if said[0] == hold_id]
            whole = hold.state is HoldState.REFUNDED and of_it[-1] == reference
            same = whole if amount_minor is None else amount_minor == refunded_minor
            if content != (hold_id, by, reason) or not same:
                raise ReferenceConflict("stands for another refund")
            return hold
        if reference in self.movements:
            raise ReferenceConflict("stands for a movement")
        if hold.state is not HoldState.FROZEN:
            raise _state_refused(hold)
        if any(freeze.stands and freeze.kind is FreezeKind.BACKJOB for freeze in hold.freezes):
            raise BackjobRefused("covers it")
        if amount_minor is None:
            amount_minor = hold.held_minor
        if amount_minor > hold.held_minor:
            raise InsufficientFunds("more than it holds")
        self.refunds[reference] = (hold_id, by, reason), amount_minor
        self._refund(hold, amount_minor, now=now, reference=reference)
        if hold.settled is not None:
            for freeze in hold.freezes:
                freeze.stands = False
        return hold

    # ---- freezes

    def freeze_hold(
        self,
        *,
        hold_id: int,
        kind: FreezeKind,
        by: str,
        reason: str,
        now: datetime,
        reference: str | None,
        freeze_id: int | None,
    ) -> ModelFreeze:
        """Put one more freeze on a hold."""
        if kind is FreezeKind.BACKJOB:
            raise InvalidInput("a backjob's freeze by itself")
        content = (hold_id, kind, by, reason)
        known = self._known("freeze", reference, content)
        if known is not None:
            return self.freezes[known]
        hold = self.find_hold(hold_id)
        if hold is None:
            raise NotFound("no such hold")
        if hold.settled is not None:
            raise _state_refused(hold)
        assert freeze_id is not None, "the books gave an id"
        self._keep("freeze", reference, content, freeze_id)
        return self._freeze(hold, freeze_id, kind, now=now)

    def unfreeze_hold(
        self, *, freeze_id: int, by: str, reason: str, now: datetime, reference: str | None
    ) -> ModelFreeze:
        """Close a freeze; with its last one a hold goes back, on its own date."""
        content = (freeze_id, by, reason)
        known = self._known("closing", reference, content)
        if known is not None:
            return self.freezes[known]
        freeze = self.freezes.get(freeze_id)
        if freeze is None:
            raise NotFound("no such freeze")
        if freeze.kind is FreezeKind.BACKJOB:
            raise FreezeRefused("is a backjob's")
        if not freeze.stands:
            raise FreezeRefused("closed already")
        freeze.stands = False
        hold = self.find_hold(freeze.hold_id)
        assert hold is not None
        if hold.state is HoldState.BUFFERED:
            self._tell_resumed(hold, now, None)
        self._keep("closing", reference, content, freeze_id)
        return freeze

    def _freeze(
        self,
        hold: ModelHold,
        freeze_id: int,
        kind: FreezeKind,
        *,
        now: datetime,
        backjob_id: int | None = None,
    ) -> ModelFreeze:
        if hold.state is HoldState.BUFFERED:
            self._tell("PAYMENT_FROZEN", hold.asked.payee, now, hold, hold.held_minor, backjob_id=backjob_id)
        freeze = ModelFreeze(freeze_id=freeze_id, hold_id=hold.hold_id, kind=kind, backjob_id=backjob_id)
        self.freezes[freeze_id] = freeze
        hold.freezes.append(freeze)
        return freeze

    # ---- wallets

    def move(
        self, type_: str, *, owner: str, amount: str, currency: str, reference: str, now: datetime
    ) -> int:
        """Deposit into a balance or withdraw from it; return the balance behind it."""
        amount_minor = minor(amount, currency)
        content = (type_, owner, currency, amount_minor)
        if reference in self.refunds:
            raise ReferenceConflict("stands for a refund")
        if reference in self.movements:
            if self.movements[reference] != content:
                raise ReferenceConflict("stands for another movement")
            return self.wallets[owner, currency].balance_minor
        if type_ == "WITHDRAWAL":
            if (owner, currency) not in self.wallets:
                raise NotFound("no such wallet")
            if amount_minor > self.wallets[owner, currency].balance_minor:
                raise InsufficientFunds("more than the balance")
        wallet = self._wallet(owner, currency)
        outside, inside = EXTERNAL, ("BALANCE", owner)
        source, target = (outside, inside) if type_ == "DEPOSIT" else (inside, outside)
        wallet.balance_minor += amount_minor if type_ == "DEPOSIT" else -amount_minor
        self.movements[reference] = content
        self.lines.append(Line(type_, source, target, currency, amount_minor, now, reference=reference))
        return wallet.balance_minor

    def _wallet(self, owner: str, currency: str) -> ModelWallet:
        return self.wallets.setdefault((owner, currency), ModelWallet())

    # ---- messages

    def _tell(
        self,
        type_: str,
        owner: str,
        now: datetime,
        hold: ModelHold,
        amount_minor: int,
        *,
        backjob_id: int | None = None,
        release_date: datetime | None = None,
    ) -> None:
        self.told.append(
            Told(type_, owner, now, hold.hold_id, backjob_id, hold.asked.currency, amount_minor, release_date)
        )

    def _tell_resumed(self, hold: ModelHold, now: datetime, backjob_id: int | None) -> None:
        self._tell(
            "PAYMENT_RESUMED",
            hold.asked.payee,
            now,
            hold,
            hold.held_minor,
            backjob_id=backjob_id,
            release_date=hold.release_date,
        )


def minor(amount: str, currency: str) -> int:
    """Return an amount in minor units, if it is positive and has no more places than the currency."""
    number = Decimal(amount)
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    if number <= 0:
        raise InvalidInput("not above zero")
    if -exponent > PLACES[currency]:
        raise InvalidInput("too many places")
    return int(number * 10 ** PLACES[currency])


def largest_remainder(total: int, weights: list[int]) -> list[int]:
    """Give each its share rounded down, and one unit more to the largest remainders, the earlier on a tie."""
    exact = [Fraction(total * weight, sum(weights)) for weight in weights]
    shares = [int(share) for share in exact]
    remainders = [share - int(share) for share in exact]
    while sum(shares) < total:
        largest = remainders.index(max(remainders))
        shares[largest] += 1
        remainders[largest] = Fraction(-1)
    return shares


def _repeats(asked: Asked, amount_minor: int, first: ModelHold) -> bool:
    """Whether an earning says what the first of its reference said; of dates only those that are given."""
    same = (asked.job, asked.payee, asked.payer, asked.currency, asked.title, amount_minor) == (
        first.asked.job,
        first.asked.payee,
        first.asked.payer,
        first.asked.currency,
        first.asked.title,
        first.amount_minor,
    )
    return (
        same
        and asked.held_at in (None, first.held_at)
        and asked.release_date in (None, first.original_release_date)
    )


def _concerned(backjob: ModelBackjob) -> set[str]:
    return {owner for hold in backjob.holds for owner in (hold.asked.payee, hold.asked.payer)}


def _in_order(holds: Iterable[ModelHold]) -> list[ModelHold]:
    return sorted(holds, key=lambda hold: hold.hold_id)


def _hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _state_refused(hold: ModelHold) -> StateRefused:
    return StateRefused(hold_id=hold.hold_id, state=hold.state, verb="this", allowed=())
