"""The rules of claw-backs and debts."""

from datetime import datetime
from typing import Final

from buffer_pipeline.errors import (
    DebtRefused,
    InsufficientFunds,
    InvalidInput,
    NotFound,
    ReferenceConflict,
    RuleRefused,
)
from buffer_pipeline_tests.support.model.amounts import largest_remainder, minor
from buffer_pipeline_tests.support.model.backjobs import PAYEES
from buffer_pipeline_tests.support.model.books import EXTERNAL, state_refused
from buffer_pipeline_tests.support.model.early import EarlyModel
from buffer_pipeline_tests.support.model.records import (
    Account,
    Line,
    ModelClawback,
    ModelDebt,
    ModelHold,
    ModelNotification,
)

ASKED_FOR: Final = "asked for"


class DebtModel(EarlyModel):
    """The books with claw-backs, recoveries and forgiven debts."""

    def claw_back(
        self,
        *,
        amount: str,
        to: str,
        by: str,
        reason: str,
        reference: str,
        now: datetime,
        hold_id: int | None = None,
        earning_reference: str | None = None,
        advanced_by: str | None = None,
        clawback_id: int | None,
        debt_ids: tuple[int, ...],
    ) -> ModelClawback:
        """Take back what was released, from the shares in proportion to what each can still give.

        `debt_ids` are in the order of the holds.
        """
        if hold_id is None:
            assert earning_reference is not None
            earning = self.earnings.get(earning_reference)
            hold_id = None if earning is None else earning.first.hold_id
        holds = self.named(hold_id, None)
        if not holds:
            raise NotFound("no such hold")
        named, currency = holds[0], holds[0].intake.currency
        amount_minor = minor(amount, currency)
        content = (named.hold_id, by, reason, to, amount_minor, advanced_by)
        if reference in self.clawbacks:
            if self.clawbacks[reference].content != content:
                raise ReferenceConflict("already used for another claw-back")
            return self.clawbacks[reference]
        if reference in self.early or reference in self.debt_keys:
            raise ReferenceConflict("already used for something else")
        parts = self._split(holds, amount_minor, to=to, advanced_by=advanced_by)
        plan = self._plan([(hold, part) for hold, part in zip(holds, parts, strict=True) if part])
        owed_minor = sum(owed for _, _, owed in plan)
        if advanced_by is not None:
            own_minor = sum(taken + owed for hold, taken, owed in plan if hold.owner == advanced_by)
            if self.wallets[advanced_by, currency].balance_minor - own_minor < owed_minor:
                raise InsufficientFunds("the balance does not cover what is advanced")
        assert clawback_id is not None, "the books gave an id"
        done = ModelClawback(
            clawback_id=clawback_id,
            named_id=named.hold_id,
            content=content,
            taken_minor=amount_minor - owed_minor,
            owed_minor=owed_minor,
            debts=self._open_debts(
                plan, clawback_id, debt_ids, to=to, advanced_by=advanced_by, named=named, now=now
            ),
        )
        for_payer = 0
        for hold, taken, owed in plan:
            hold.clawed_back_minor += taken + owed
            for_payer += self._take(hold, "CLAWBACK", ("BALANCE", hold.owner), taken, to=to, now=now)
        for debt in done.debts:
            if debt.creditor is None or advanced_by is not None:
                source: Account = ("RECEIVABLE", None) if debt.creditor is None else ("BALANCE", advanced_by)
                for_payer += self._take(
                    debt.hold, "ADVANCE", source, debt.amount_minor, to=to, now=now, debt_id=debt.debt_id
                )
        self._tell_of_clawback(plan, named, for_payer, clawback_id, now=now)
        self.clawbacks[reference] = done
        return done

    def _split(
        self, holds: list[ModelHold], amount_minor: int, *, to: str, advanced_by: str | None
    ) -> list[int]:
        """Return what each hold gives back. The first is the named one.

        A kept fee gives nothing to the payer, and to a bank what the others do not cover.
        """
        named, currency = holds[0], holds[0].intake.currency
        if advanced_by is not None and (advanced_by, currency) not in self.wallets:
            raise NotFound("no wallet to advance from")
        if advanced_by in (named.owner, named.intake.payer):
            raise InvalidInput("advanced by the payee or the payer")
        if not any(hold.released_minor for hold in holds):
            raise state_refused(named)
        left = [hold.released_minor - hold.clawed_back_minor for hold in holds]
        if not any(left):
            raise InsufficientFunds("nothing is left to take back")
        first = [0 if hold.is_kept else rest for hold, rest in zip(holds, left, strict=True)]
        if to == "PAYER" and not any(first):
            raise RuleRefused("the whole amount is kept")
        if amount_minor > sum(first if to == "PAYER" else left):
            raise InsufficientFunds("more than is left to take back")
        from_first = min(amount_minor, sum(first))
        parts = largest_remainder(from_first, first) if from_first else [0] * len(holds)
        if from_first < amount_minor:
            kept = [rest - share for rest, share in zip(left, first, strict=True)]
            fees = largest_remainder(amount_minor - from_first, kept)
            parts = [part + fee for part, fee in zip(parts, fees, strict=True)]
        return parts

    def _plan(self, asked: list[tuple[ModelHold, int]]) -> list[tuple[ModelHold, int, int]]:
        """Return what each hold's owner pays now and owes: first shares first."""
        balances: dict[str, int] = {}
        plan = []
        for hold, part in asked:
            balance = balances.get(hold.owner, self._wallet(hold.owner, hold.intake.currency).balance_minor)
            taken = min(part, balance)
            balances[hold.owner] = balance - taken
            plan.append((hold, taken, part - taken))
        return plan

    def _open_debts(
        self,
        plan: list[tuple[ModelHold, int, int]],
        clawback_id: int,
        debt_ids: tuple[int, ...],
        *,
        to: str,
        advanced_by: str | None,
        named: ModelHold,
        now: datetime,
    ) -> list[ModelDebt]:
        owing = [(hold, owed) for hold, _, owed in plan if owed]
        debts = [
            ModelDebt(
                debt_id=debt_id,
                clawback_id=clawback_id,
                hold=hold,
                owner=hold.owner,
                creditor=advanced_by or (named.intake.payer if to == "PAYER" else None),
                currency=hold.intake.currency,
                amount_minor=owed,
                outstanding_minor=owed,
                opened_at=now,
            )
            for debt_id, (hold, owed) in zip(debt_ids, owing, strict=True)
        ]
        self.debts.update({debt.debt_id: debt for debt in debts})
        return debts

    def _take(
        self,
        hold: ModelHold,
        type_: str,
        source: Account,
        amount_minor: int,
        *,
        to: str,
        now: datetime,
        debt_id: int | None = None,
    ) -> int:
        """Move money to the payer or out of the books; return what the payer got."""
        if not amount_minor:
            return 0
        currency, payer = hold.intake.currency, hold.intake.payer
        if source[1] is not None:
            self._wallet(source[1], currency).balance_minor -= amount_minor
        if to == "PAYER":
            self._wallet(payer, currency).balance_minor += amount_minor
        target: Account = ("BALANCE", payer) if to == "PAYER" else EXTERNAL
        self.lines.append(
            Line(type_, source, target, currency, amount_minor, now, hold_id=hold.hold_id, debt_id=debt_id)
        )
        return amount_minor if to == "PAYER" else 0

    def _tell_of_clawback(
        self,
        plan: list[tuple[ModelHold, int, int]],
        named: ModelHold,
        for_payer: int,
        clawback_id: int,
        *,
        now: datetime,
    ) -> None:
        for owner in {hold.owner for hold, _, _ in plan}:
            own = [each for each in plan if each[0].owner == owner]
            wants = owner in self.wants_messages_of_shares
            if wants or any(hold.kind in PAYEES or hold is named for hold, _, _ in own):
                self.notifications.append(
                    ModelNotification(
                        "EARNING_CLAWED_BACK",
                        owner,
                        now,
                        min(hold.hold_id for hold, _, _ in own),
                        None,
                        named.intake.currency,
                        sum(taken + owed for _, taken, owed in own),
                        None,
                        sum(owed for _, _, owed in own) or None,
                        clawback_id,
                    )
                )
        if for_payer:
            self._notify("PAYMENT_REFUNDED", named.intake.payer, now, named, for_payer)

    def recover_debts(
        self, *, owner: str, by: str, reason: str | None, reference: str | None, now: datetime
    ) -> dict[int, int]:
        """Pay an owner's debts from their balances; return what was paid of each."""
        content = ("recovery", owner, by, reason or ASKED_FOR)
        known = self._known_of_debts(reference, content)
        if known is not None:
            return known
        owed = self.open_debts_of(owner)
        if not owed:
            raise DebtRefused("no open debt")
        budgets = {(owner, debt.currency): self.wallets[owner, debt.currency].balance_minor for debt in owed}
        if not any(budgets.values()):
            raise InsufficientFunds("the balance is empty")
        paid = self._recover(budgets, now=now)
        if reference is not None:
            self.debt_keys[reference] = content, paid
        return paid

    def forgive_debt(
        self, *, debt_id: int, by: str, reason: str, reference: str | None, now: datetime
    ) -> tuple[ModelDebt, int]:
        """Write off what is outstanding of a debt; return the debt and that amount."""
        debt = self.debts.get(debt_id)
        if debt is None:
            raise NotFound("no such debt")
        content = ("forgiven", debt_id, by, reason)
        known = self._known_of_debts(reference, content)
        if known is not None:
            return debt, known[debt_id]
        if not debt.outstanding_minor:
            raise DebtRefused("closed")
        amount_minor, debt.outstanding_minor, debt.is_forgiven = debt.outstanding_minor, 0, True
        self._pay_creditor(debt, "WRITE_OFF", ("LOSS", None), amount_minor, now=now)
        self._notify("DEBT_FORGIVEN", debt.owner, now, debt.hold, amount_minor, clawback_id=debt.clawback_id)
        if reference is not None:
            self.debt_keys[reference] = content, {debt_id: amount_minor}
        return debt, amount_minor

    def _known_of_debts(self, reference: str | None, content: tuple[object, ...]) -> dict[int, int] | None:
        if reference is None:
            return None
        if reference in self.clawbacks or reference in self.early:
            raise ReferenceConflict("already used for something else")
        if reference not in self.debt_keys:
            return None
        first, paid = self.debt_keys[reference]
        if first != content:
            raise ReferenceConflict("already used for another debt")
        return paid

    def open_debts_of(self, owner: str) -> list[ModelDebt]:
        """Return what an owner owes, in any currency."""
        return [debt for debt in self.debts.values() if debt.owner == owner and debt.outstanding_minor]
