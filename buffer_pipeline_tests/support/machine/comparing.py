"""Each step calls a verb on the books and on the model, and compares the two."""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from datetime import datetime
from itertools import count
from typing import Any, ClassVar, Final, TypeVar

from hypothesis.stateful import RuleBasedStateMachine
from sqlalchemy import Connection

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.errors import Refused, StateRefused
from buffer_pipeline.hold import HoldState
from buffer_pipeline_tests.support.builders import NOON
from buffer_pipeline_tests.support.machine.drawn import choose
from buffer_pipeline_tests.support.model.records import Line, ModelHold
from buffer_pipeline_tests.support.model.terms import ModelRule
from buffer_pipeline_tests.support.model.verbs import Model
from buffer_pipeline_tests.support.observed import RealBooks
from buffer_pipeline_tests.support.observed_records import (
    Seen,
    SeenBackjob,
    SeenDebt,
    SeenFreeze,
    SeenHold,
    SeenOwnerFreeze,
    SeenPayout,
    SeenPayoutBatch,
)

FINAL: Final = (HoldState.RELEASED, HoldState.REFUNDED)

Got = TypeVar("Got")


class ComparingMachine(RuleBasedStateMachine):
    """Calls the books and the model with the same arguments, and compares their states."""

    books: ClassVar[RealBooks]
    begun: ClassVar[int]
    outcomes: ClassVar[Counter[str]]
    """How often each verb succeeded, and was refused for each reason."""
    reached: ClassVar[Counter[str]]
    """The number of sequences that reached a situation."""

    first: ClassVar[tuple[Model, Seen] | None]
    """What each sequence begins with, once it exists."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.now: datetime = NOON
        self.numbers = count(1)
        self.balances: Counter[tuple[str, str]] = Counter()
        self.paid_minor: Counter[int] = Counter()
        self.situations: set[str] = set()
        self.done: dict[str, Callable[..., None]] = {}
        """Each verb's last call with a reference, to be repeated with a reason."""
        self.agreed = True
        type(self).begun += 1
        if self.first is None:
            self.books.clear()
            self.seen = self.books.observe()
            self._begin()
            self.books.keep()
            type(self).first = deepcopy(self.model), self.books.observe(since=self.seen)
        else:
            self.books.restore()
            self.model, self.seen = deepcopy(self.first[0]), self.first[1]

    def _begin(self) -> None:
        """Call the verbs with which every sequence begins. They are called once: what they wrote is kept."""

    def teardown(self) -> None:
        """The books pass `reconcile`, and all their lines match the model."""
        if not self.agreed:
            return
        with self.books.connection.begin():
            assert reconcile(self.books.connection) == []
        everything = self.books.observe()
        assert Counter(line for line, *_ in everything.lines) == Counter(self.model.lines)
        assert Counter(everything.notifications) == Counter(self.model.notifications)
        self.reached.update(self.situations)

    def _call_both(self, verb: str, real: Callable[[], Any], model: Callable[[Any], str]) -> None:
        """Call the books, observe them, call the model, and compare.

        The model returns "done", "nothing" or "replayed".
        """
        self.agreed = False
        before = self.seen
        lines_before, notifications_before = len(self.model.lines), len(self.model.notifications)
        answer = real()
        self.seen = self.books.observe(since=before)
        got = None if isinstance(answer, Refused) else answer
        refused = answer if isinstance(answer, Refused) else None
        outcome: str | Refused
        try:
            outcome = model(got)
        except Refused as refusal:
            outcome = refusal
        except (AssertionError, KeyError) as difference:
            raise AssertionError(f"{verb}: {answer!r}, which is not what the model says") from difference
        self._count(verb, outcome)
        expected = outcome if isinstance(outcome, Refused) else None
        assert type(refused) is type(expected), f"{verb}: {answer!r}, the model says {outcome!r}"
        if isinstance(refused, StateRefused) and isinstance(expected, StateRefused):
            assert (refused.hold_id, refused.state) == (expected.hold_id, expected.state)
        if expected is not None or outcome in ("nothing", "replayed"):
            assert self.seen.digests == before.digests, f"{verb}: wrote, and was to write nothing"
        self._check_the_books()
        self._compare(lines_before, notifications_before)
        self.agreed = True

    def _committed(self, verb: Callable[[Connection], Got]) -> Callable[[], Got | Refused]:
        """Run a verb in a transaction that commits even if the verb refuses, so that anything
        written stays.
        """

        def run() -> Got | Refused:
            with self.books.connection.begin():
                try:
                    return verb(self.books.connection)
                except Refused as refusal:
                    return refusal

        return run

    def _check_the_books(self) -> None:
        seen = self.seen
        assert not any(seen.sums_minor.values()), f"the books come to {seen.sums_minor}"
        for whose, wallet in seen.wallets.items():
            assert wallet.pending_minor == wallet.waiting_minor == wallet.pending_by_lines_minor, whose
            assert wallet.balance_minor == wallet.balance_by_lines_minor, whose
        for line, balance_after_minor, from_balance_after_minor in seen.lines:
            if line.type in ("EARNING", "EARNING_PART", "REFUND"):
                assert line.hold_id is not None
                self.paid_minor[line.hold_id] += line.amount_minor
            for (account, owner), sign in ((line.source, -1), (line.target, 1)):
                if account == "BALANCE":
                    assert owner is not None
                    self.balances[owner, line.currency] += sign * line.amount_minor
                    is_left = sign < 0 and line.target[0] == "BALANCE"
                    after_minor = from_balance_after_minor if is_left else balance_after_minor
                    assert after_minor == self.balances[owner, line.currency], line
        for hold_id, hold in seen.holds.items():
            paid_minor = self.paid_minor[hold_id]
            assert paid_minor <= hold.amount_minor, f"hold {hold_id}: settled twice"
            assert (paid_minor == hold.amount_minor) == (hold.state in FINAL), f"hold {hold_id}: half settled"

    def _compare(self, lines_before: int, notifications_before: int) -> None:
        seen, model = self.seen, self.model
        assert {
            whose: (wallet.balance_minor, wallet.pending_minor, wallet.debt_minor)
            for whose, wallet in seen.wallets.items()
        } == {
            whose: (wallet.balance_minor, wallet.pending_minor, self._owed(*whose))
            for whose, wallet in model.wallets.items()
        }
        assert seen.holds == {
            hold.hold_id: SeenHold(
                hold.intake.reference,
                hold.state,
                hold.amount_minor,
                hold.refunded_minor,
                hold.released_minor,
                hold.release_date,
                hold.settled_at,
                hold.owner,
                hold.kind,
                None if hold is hold.earning.first else hold.earning.first.hold_id,
                hold.earning.amount_minor
                if hold is hold.earning.first and len(hold.earning.holds) > 1
                else None,
                *_named(hold.earning.rule),
            )
            for hold in model.holds.values()
        }
        assert seen.freezes == {
            freeze.freeze_id: SeenFreeze(
                freeze.hold_id,
                freeze.kind,
                freeze.backjob_id,
                freeze.owner_freeze_id,
                freeze.earning_id,
                freeze.earning_freeze_id,
                freeze.is_open,
            )
            for freeze in model.freezes.values()
        }
        assert seen.owner_freezes == {
            freeze.owner_freeze_id: SeenOwnerFreeze(
                freeze.owner, freeze.kind, freeze.holds_frozen, freeze.holds_resumed
            )
            for freeze in model.owner_freezes.values()
        }
        assert seen.backjobs == {
            backjob.backjob_id: SeenBackjob(backjob.job, backjob.state, backjob.refunded_minor)
            for backjob in model.backjobs.values()
        }
        self._compare_debts_and_payouts()
        self._see_recoveries(model.lines[lines_before:])
        assert Counter(line for line, *_ in seen.lines) == Counter(model.lines[lines_before:])
        assert Counter(seen.notifications) == Counter(model.notifications[notifications_before:])

    def _owed(self, owner: str, currency: str) -> int:
        return sum(
            debt.outstanding_minor
            for debt in self.model.debts.values()
            if (debt.owner, debt.currency) == (owner, currency)
        )

    def _see_recoveries(self, lines: list[Line]) -> None:
        """Note what a release has paid of debts."""
        released = {line.target[1] for line in lines if line.type in ("EARNING", "EARNING_PART")}
        paid = [line for line in lines if line.type == "RECOVERY"]
        if not released or not paid:
            return
        debts = [self.model.debts[line.debt_id] for line in paid if line.debt_id is not None]
        self._reach("a release pays a debt", True)
        self._reach("a part pays a debt", any(line.type == "EARNING_PART" for line in lines))
        self._reach("a release pays a debt off", any(not debt.outstanding_minor for debt in debts))
        self._reach("a release pays a debt in part", any(debt.outstanding_minor for debt in debts))
        self._reach("a release pays several debts", len(debts) > 1)
        self._reach("a release pays a debt to a bank", any(debt.creditor is None for debt in debts))
        self._reach(
            "a creditor is paid and releases at once", any(debt.creditor in released for debt in debts)
        )

    def _compare_debts_and_payouts(self) -> None:
        assert self.seen.debts == {
            debt.debt_id: SeenDebt(
                debt.hold.hold_id,
                debt.owner,
                debt.creditor,
                debt.amount_minor,
                debt.outstanding_minor,
                debt.outstanding_minor > 0,
                debt.is_forgiven,
            )
            for debt in self.model.debts.values()
        }
        assert self.seen.payouts == {
            payout.payout_id: SeenPayout(
                payout.owner,
                payout.currency,
                payout.amount_minor,
                payout.state,
                None if payout.batch is None else payout.batch.payout_batch_id,
            )
            for payout in self.model.payouts.values()
        }
        assert self.seen.payout_batches == {
            batch.payout_batch_id: SeenPayoutBatch(
                batch.currency,
                batch.method,
                batch.state,
                batch.payouts,
                batch.amount_minor,
                batch.four_eyes,
            )
            for batch in self.model.payout_batches.values()
        }

    def _count(self, verb: str, outcome: str | Refused) -> None:
        if isinstance(outcome, StateRefused):
            outcome = f"StateRefused: {outcome.state}"
        elif isinstance(outcome, Refused):
            outcome = f"{type(outcome).__name__}: {outcome}"
        self.outcomes[f"{verb}: {outcome}"] += 1

    def _reach(self, situation: str, reached: bool) -> None:
        if reached:
            self.situations.add(situation)

    # ---- references, and what exists

    def _key(self, keyed: bool) -> str | None:
        # References are separate for each kind of verb, so two kinds may use the same text.
        return f"key-{next(self.numbers)}" if keyed else None

    def _keep(self, verb: str, reference: str | None, outcome: str, again: Callable[..., None]) -> str:
        if reference is not None and outcome != "replayed":
            self.done[verb] = again
        return outcome

    def _movements(self) -> int:
        # Holds and movements have separate references, so both may use the same text.
        return len(self.model.movements) + len(self.model.refunds)

    def _refunded(self) -> list[ModelHold]:
        return [hold for hold in self.model.holds.values() if hold.settled is HoldState.REFUNDED]

    def _one_of(self, holds: list[ModelHold], pick: int) -> ModelHold:
        return choose(holds or list(self.model.holds.values()), pick)


def _named(rule: ModelRule | None) -> tuple[str, int] | tuple[None, None]:
    return (None, None) if rule is None else (rule.name, rule.version)


def there_are_holds(machine: "ComparingMachine") -> bool:
    """Return True if any hold exists."""
    return bool(machine.model.holds)
