"""The books of the model, without the rules of any verb."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from fractions import Fraction
from typing import Final

from buffer_pipeline.errors import ReferenceConflict, StateRefused
from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState
from buffer_pipeline.shares import ShareKind
from buffer_pipeline_tests.support.model.records import (
    Account,
    Line,
    ModelBackjob,
    ModelClawback,
    ModelDebt,
    ModelDestination,
    ModelEarning,
    ModelFreeze,
    ModelHold,
    ModelNotification,
    ModelOwnerFreeze,
    ModelPayout,
    ModelPayoutBatch,
    ModelRefund,
    ModelRelease,
    ModelWallet,
)
from buffer_pipeline_tests.support.model.terms import RuleBook

ESCROW: Final[Account] = ("ESCROW", None)
EXTERNAL: Final[Account] = ("EXTERNAL", None)


class ModelBooks:
    """The books, and changes that several verbs share."""

    def __init__(self) -> None:
        self.jobs: dict[str, str] = {}
        """Job -> payer."""
        self.wallets: dict[tuple[str, str], ModelWallet] = {}
        self.earnings: dict[str, ModelEarning] = {}
        """By reference."""
        self.holds: dict[int, ModelHold] = {}
        """By id: of an earning with shares, each share."""
        self.rule_book = RuleBook()
        self.wants_messages_of_shares: set[str] = set()
        """Owners who want messages about each fee and tax."""
        self.backjobs: dict[int, ModelBackjob] = {}
        self.freezes: dict[int, ModelFreeze] = {}
        self.owner_freezes: dict[int, ModelOwnerFreeze] = {}
        self.debts: dict[int, ModelDebt] = {}
        self.clawbacks: dict[str, ModelClawback] = {}
        """By reference."""
        self.debt_keys: dict[str, tuple[tuple[object, ...], dict[int, int]]] = {}
        """reference -> the content of a recovery or of a forgiven debt, and what was paid of each debt."""
        self.destinations: dict[str, ModelDestination] = {}
        """Owner -> the newest version."""
        self.payouts: dict[int, ModelPayout] = {}
        self.payout_keys: dict[str, int] = {}
        """reference -> payout."""
        self.payout_batches: dict[int, ModelPayoutBatch] = {}
        self.movements: dict[str, tuple[str, str, str, int]] = {}
        self.refunds: dict[str, ModelRefund] = {}
        """By reference, which no movement has too."""
        self.moves: dict[str, list[ModelHold]] = {}
        """By reference: what moved."""
        self.early: dict[str | None, tuple[tuple[object, ...], ModelRelease]] = {}
        """reference -> the content of an early release, and what it released."""
        self.keys: dict[tuple[str, str], tuple[tuple[object, ...], int]] = {}
        """(kind of verb, reference) -> its content, and the id of the backjob or freeze."""
        self.lines: list[Line] = []
        self.notifications: list[ModelNotification] = []

    # ---- queries

    def find_hold(self, hold_id: int) -> ModelHold | None:
        """Return the hold with this id."""
        return self.holds.get(hold_id)

    def holds_of(self, job: str) -> list[ModelHold]:
        """Return the holds of a job, earliest first."""
        return in_order(hold for hold in self.holds.values() if hold.intake.job == job)

    def unsettled(self) -> list[ModelHold]:
        """Return the unsettled holds."""
        return in_order(hold for hold in self.holds.values() if hold.settled is None)

    def due(self, by: datetime) -> list[ModelHold]:
        """Return the holds without an open freeze whose release date is reached."""
        return [
            hold for hold in self.unsettled() if hold.state is HoldState.BUFFERED and hold.release_date <= by
        ]

    def open_backjob(self, job: str) -> ModelBackjob | None:
        """Return the job's open backjob."""
        of_job = (backjob for backjob in self.backjobs.values() if backjob.job == job)
        return next((backjob for backjob in of_job if backjob.state is BackjobState.OPEN), None)

    def frozen_owner(self, owner: str) -> ModelOwnerFreeze | None:
        """Return the owner's open freeze."""
        of_owner = (freeze for freeze in self.owner_freezes.values() if freeze.owner == owner)
        return next((freeze for freeze in of_owner if freeze.holds_resumed is None), None)

    def _known(self, kind: str, reference: str | None, content: tuple[object, ...]) -> int | None:
        """Return the id that a reference identifies, if the content is the same."""
        if reference is None or (kind, reference) not in self.keys:
            return None
        first, found = self.keys[kind, reference]
        if first != content:
            raise ReferenceConflict("already used for other content")
        return found

    def _keep(self, kind: str, reference: str | None, content: tuple[object, ...], found: int) -> None:
        if reference is not None:
            self.keys[kind, reference] = content, found

    # ---- changes

    def _release_together(self, holds: Collection[ModelHold], *, now: datetime) -> None:
        """Release the holds of one batch, and pay debts from it. Recipients are chosen before any hold is
        settled.
        """
        given = {hold.hold_id: hold.held_minor for hold in holds}
        for hold, notified in [(hold, self._is_notified(hold)) for hold in holds]:
            self._release(hold, now=now, notified=notified)
        self._recover_from_release(given, now=now)

    def _recover_from_release(self, given: Mapping[int, int], *, now: datetime) -> None:
        """Pay debts of payees from what each hold gave, the percent that its rule says."""
        budgets: dict[tuple[str, str], int] = {}
        for hold_id, amount_minor in given.items():
            hold = self.holds[hold_id]
            percent = Fraction(hold.terms.get("recovery_percent", "100"))
            whose = hold.owner, hold.intake.currency
            budgets[whose] = budgets.get(whose, 0) + int(amount_minor * percent / 100)
        self._recover(budgets, now=now)

    def _recover(self, budgets: dict[tuple[str, str], int], *, now: datetime) -> dict[int, int]:
        """Pay debts from balances, at most so much of each, the oldest debt first; return what was paid."""
        paid: dict[int, int] = {}
        for debt in sorted(self.debts.values(), key=lambda debt: (debt.opened_at, debt.debt_id)):
            whose = debt.owner, debt.currency
            part_minor = min(debt.outstanding_minor, budgets.get(whose, 0))
            if not part_minor:
                continue
            budgets[whose] -= part_minor
            debt.outstanding_minor -= part_minor
            self._wallet(*whose).balance_minor -= part_minor
            self._pay_creditor(debt, "RECOVERY", ("BALANCE", debt.owner), part_minor, now=now)
            self._notify(
                "DEBT_RECOVERED",
                debt.owner,
                now,
                debt.hold,
                part_minor,
                left_minor=debt.outstanding_minor or None,
                clawback_id=debt.clawback_id,
            )
            paid[debt.debt_id] = part_minor
        return paid

    def _pay_creditor(
        self, debt: ModelDebt, type_: str, source: Account, amount_minor: int, *, now: datetime
    ) -> None:
        target: Account = ("RECEIVABLE", None)
        if debt.creditor is not None:
            target = ("BALANCE", debt.creditor)
            self._wallet(debt.creditor, debt.currency).balance_minor += amount_minor
        self.lines.append(Line(type_, source, target, debt.currency, amount_minor, now, debt_id=debt.debt_id))
        if debt.creditor == debt.hold.intake.payer:
            self._notify("PAYMENT_REFUNDED", debt.creditor, now, debt.hold, amount_minor)

    def _release(self, hold: ModelHold, *, now: datetime, notified: bool) -> None:
        intake, amount_minor = hold.intake, hold.held_minor
        wallet = self._wallet(hold.owner, intake.currency)
        wallet.pending_minor -= amount_minor
        wallet.balance_minor += amount_minor
        hold.held_minor = 0
        hold.released_minor += amount_minor
        hold.settled, hold.settled_at = HoldState.RELEASED, now
        self.lines.append(
            Line(
                "EARNING",
                ("PENDING_EARNINGS", hold.owner),
                ("BALANCE", hold.owner),
                intake.currency,
                amount_minor,
                now,
                hold_id=hold.hold_id,
                release_date=hold.release_date,
            )
        )
        if notified:
            self._notify("PAYMENT_RELEASED", hold.owner, now, hold, amount_minor)

    def _refund(
        self,
        hold: ModelHold,
        amount_minor: int,
        *,
        now: datetime,
        backjob_id: int | None = None,
        reference: str | None = None,
    ) -> None:
        intake = hold.intake
        self._wallet(hold.owner, intake.currency).pending_minor -= amount_minor
        self._wallet(intake.payer, intake.currency).balance_minor += amount_minor
        hold.held_minor -= amount_minor
        hold.refunded_minor += amount_minor
        if hold.held_minor == 0:
            hold.settled, hold.settled_at = HoldState.REFUNDED, now
        self.lines.append(
            Line(
                "REFUND",
                ("PENDING_EARNINGS", hold.owner),
                ("BALANCE", intake.payer),
                intake.currency,
                amount_minor,
                now,
                hold_id=hold.hold_id,
                backjob_id=backjob_id,
                release_date=hold.release_date,
                reference=reference,
            )
        )

    def _freeze(
        self,
        hold: ModelHold,
        freeze_id: int,
        kind: FreezeKind,
        *,
        now: datetime,
        backjob_id: int | None = None,
        owner_freeze_id: int | None = None,
        earning_id: int | None = None,
        earning_freeze_id: int | None = None,
    ) -> ModelFreeze:
        if hold.state is HoldState.BUFFERED and self._is_notified(hold):
            self._notify("PAYMENT_FROZEN", hold.owner, now, hold, hold.held_minor, backjob_id=backjob_id)
        freeze = ModelFreeze(
            freeze_id=freeze_id,
            hold_id=hold.hold_id,
            kind=kind,
            backjob_id=backjob_id,
            owner_freeze_id=owner_freeze_id,
            earning_id=earning_id,
            earning_freeze_id=earning_freeze_id,
        )
        self.freezes[freeze_id] = freeze
        hold.freezes.append(freeze)
        return freeze

    def _wallet(self, owner: str, currency: str) -> ModelWallet:
        return self.wallets.setdefault((owner, currency), ModelWallet())

    # ---- messages

    def _is_notified(self, hold: ModelHold) -> bool:
        """Return True if a hold's owner gets messages about it.

        A payee gets one per earning, and one about a reserve only if nothing else is left. Other owners get
        them if they
        want messages about shares.
        """
        if hold.kind is ShareKind.RESERVE:
            return hold.earning.first.settled is not None
        return hold.kind is ShareKind.PAYEE or hold.owner in self.wants_messages_of_shares

    def _notify(
        self,
        type_: str,
        owner: str,
        now: datetime,
        hold: ModelHold,
        amount_minor: int,
        *,
        backjob_id: int | None = None,
        release_date: datetime | None = None,
        left_minor: int | None = None,
        clawback_id: int | None = None,
    ) -> None:
        self.notifications.append(
            ModelNotification(
                type_,
                owner,
                now,
                hold.hold_id,
                backjob_id,
                hold.intake.currency,
                amount_minor,
                release_date,
                left_minor,
                clawback_id,
            )
        )

    def _notify_resumed(self, hold: ModelHold, now: datetime, backjob_id: int | None) -> None:
        if self._is_notified(hold):
            self._notify_of_rest(hold, now, backjob_id)

    def _notify_of_rest(self, hold: ModelHold, now: datetime, backjob_id: int | None) -> None:
        self._notify(
            "PAYMENT_RESUMED",
            hold.owner,
            now,
            hold,
            hold.held_minor,
            backjob_id=backjob_id,
            release_date=hold.release_date,
        )


def in_order(holds: Iterable[ModelHold]) -> list[ModelHold]:
    return sorted(holds, key=lambda hold: hold.hold_id)


def state_refused(hold: ModelHold) -> StateRefused:
    return StateRefused(hold_id=hold.hold_id, state=hold.state, verb="this", allowed=())
