"""Rules that take back what was released, and that recover and forgive debts."""

from collections import Counter
from datetime import timedelta
from functools import partial
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from buffer_pipeline.debts import Clawback, ClawbackTo, DebtRecovery, claw_back, forgive_debt, recover_debts
from buffer_pipeline.debts.forgive import Forgiven
from buffer_pipeline.hold import HoldState
from buffer_pipeline_tests.support.builders import ADMIN
from buffer_pipeline_tests.support.machine.comparing import there_are_holds
from buffer_pipeline_tests.support.machine.drawn import KEYED, PARTS, PICK, UNKNOWN_IDS, choose, part_text
from buffer_pipeline_tests.support.machine.early import EarlyRules
from buffer_pipeline_tests.support.machine.releasing import ReleaseRules
from buffer_pipeline_tests.support.machine.wallets import WalletRules
from buffer_pipeline_tests.support.model.records import ModelDebt, ModelHold

ADVANCED_BY: Final = st.sampled_from(
    [*[None] * 8, *["somebody"] * 4, "platform-1", "the payee", "the payer", "nobody"]
)


class DebtRules(ReleaseRules, EarlyRules, WalletRules):
    """Money is taken back, and debts are paid or forgiven."""

    @precondition(there_are_holds)
    @rule(
        which=st.sampled_from(
            [*["released"] * 8, *["divided"] * 3, "taken back", "kept fee", "any", "unknown"]
        ),
        spent=st.sampled_from([*["all"] * 3, *["a part"] * 2, "nothing"]),
        part=st.sampled_from(PARTS),
        to=st.sampled_from(ClawbackTo),
        advanced_by=ADVANCED_BY,
        by_reference=st.booleans(),
        used=st.sampled_from([*[False] * 12, True]),
        pick=PICK,
    )
    def take_back(
        self,
        which: str,
        spent: str,
        part: str,
        to: ClawbackTo,
        advanced_by: str | None,
        by_reference: bool,
        used: bool,
        pick: int,
    ) -> None:
        """Mostly from an earning that was released, and whose payee has spent some of it."""
        hold = self._to_take_back(which, pick)
        currency = hold.intake.currency
        if spent != "nothing":
            self._spend(hold.owner, currency, spent)
        named: dict[str, Any] = {"hold_id": hold.hold_id}
        if which == "unknown":
            named = {"earning_reference": "no-9"} if by_reference else {"hold_id": choose(UNKNOWN_IDS, pick)}
        elif by_reference and hold is hold.earning.first:
            named = {"earning_reference": hold.intake.reference}
        left_minor = sum(
            one.released_minor - one.clawed_back_minor
            for one in self.model.named(hold.hold_id, None)
            if not one.is_kept
        )
        amount = part_text("all" if part == "whole" else part, left_minor, currency)
        # Names that an early release or a debt has used are refused.
        others = (
            [key for key in (*self.model.early, *self.model.debt_keys) if key is not None] if used else []
        )
        advancer = self._advancer(hold, advanced_by, pick)
        self._claw_back(
            named, amount, to, advancer, choose(others, pick) if others else f"key-{next(self.numbers)}"
        )

    def _to_take_back(self, which: str, pick: int) -> ModelHold:
        released = [hold for hold in self.model.holds.values() if hold.released_minor]
        gives = [hold for hold in released if hold.released_minor > hold.clawed_back_minor]
        if which != "any" and not gives:
            waiting = [hold for hold in self.model.unsettled() if hold.state is HoldState.BUFFERED]
            hold = self._one_of(waiting, pick)
            self._release_early(
                {"hold_id": hold.hold_id}, ADMIN, as_admin=True, min_days=0, reference=self._key(True)
            )
            gives = [hold]
        pool = {
            "released": gives,
            "divided": [hold for hold in gives if len(hold.earning.holds) > 1 and hold is hold.earning.first],
            "taken back": [hold for hold in released if hold.clawed_back_minor],
            "kept fee": [hold for hold in released if hold.is_kept],
        }
        return self._one_of(pool.get(which) or gives, pick)

    def _advancer(self, hold: ModelHold, drawn: str | None, pick: int) -> str | None:
        rich = [
            owner
            for (owner, currency), wallet in self.model.wallets.items()
            if wallet.balance_minor
            and currency == hold.intake.currency
            and owner not in (hold.owner, hold.intake.payer)
        ]
        owners = {"the payee": hold.owner, "the payer": hold.intake.payer, "nobody": "stranger-9"}
        if drawn == "somebody":
            return choose(rich, pick) if rich else None
        return owners.get(drawn, drawn) if drawn is not None else None

    def _spend(self, owner: str, currency: str, spent: str) -> None:
        wallet = self.model.wallets.get((owner, currency))
        if wallet is None or not wallet.balance_minor:
            return
        part = part_text("all" if spent == "all" else "half", wallet.balance_minor, currency)
        self._move("WITHDRAWAL", owner, part, currency)

    def _claw_back(
        self,
        named: dict[str, Any],
        amount: str,
        to: ClawbackTo,
        advanced_by: str | None,
        reference: str,
        *,
        reason: str = "a chargeback",
    ) -> None:
        arguments: dict[str, Any] = {
            **named,
            "amount": amount,
            "to": to,
            "advanced_by": advanced_by,
            "by": ADMIN,
            "reason": reason,
            "reference": reference,
        }

        def model(got: Clawback | None) -> str:
            replayed = reference in self.model.clawbacks
            done = self.model.claw_back(
                **arguments,
                now=self.now,
                clawback_id=None if got is None else got.clawback_id,
                debt_ids=() if got is None else got.debt_ids,
            )
            assert got is not None
            assert got == Clawback(
                clawback_id=done.clawback_id,
                hold_id=done.named_id,
                currency=got.currency,
                amount_minor=done.taken_minor + done.owed_minor,
                taken_minor=done.taken_minor,
                debt_minor=done.owed_minor,
                debt_ids=tuple(debt.debt_id for debt in done.debts),
                replayed=replayed,
            )
            if replayed:
                return "replayed"
            self._reach("a claw-back by the earning's reference", "earning_reference" in named)
            self._reach("a claw-back of several shares", len(self.model.named(done.named_id, None)) > 1)
            self._reach("a claw-back leaves several debts", len(done.debts) > 1)
            self._reach("a claw-back is covered in part", min(done.taken_minor, done.owed_minor) > 0)
            self._reach("a debt is advanced", bool(done.debts) and advanced_by is not None)
            self._reach("a debt to a bank", bool(done.debts) and done.debts[0].creditor is None)
            again = partial(self._claw_back, named, amount, to, advanced_by, reference)
            outcome = "done, with a debt" if done.debts else "done"
            return self._keep("claw_back", reference, outcome, again)

        self._call_both(
            "claw_back",
            self._committed(lambda connection: claw_back(connection, **arguments, now=self.now)),
            model,
        )

    # ---- what becomes of debts

    def _debts(self, pick: int) -> list[ModelDebt]:
        """Return the open debts, after making one if there is none."""
        owed = [debt for debt in self.model.debts.values() if debt.outstanding_minor]
        if not owed and self.model.holds:
            # In two halves, so that there are several.
            for part in ("half", "whole"):
                to = choose([*ClawbackTo], pick)
                self.take_back("released", "all", part, to, None, False, False, pick)
            owed = [debt for debt in self.model.debts.values() if debt.outstanding_minor]
        return owed

    @precondition(there_are_holds)
    @rule(
        rule_name=st.sampled_from([None, None, "a third of it", "none of it"]),
        part=st.sampled_from(["a little", "a little", "enough", "more"]),
        early=st.sampled_from([False, True]),
        pick=PICK,
    )
    def earn_by_debtor(self, rule_name: str | None, part: str, early: bool, pick: int) -> None:
        """A debtor earns, and it is released."""
        owed = self._debts(pick)
        if not owed:
            return
        several = [debt for debt in owed if len(self.model.open_debts_of(debt.owner)) > 1]
        debt = choose(several if several and pick % 4 else owed, pick)
        owed_minor = self._owed(debt.owner, debt.currency)
        amount_minor = max(2, {"a little": 2, "enough": owed_minor, "more": owed_minor * 2}[part])
        payer = "client-1" if debt.owner != "client-1" else "client-2"
        job = f"job-{next(self.numbers) + 10}"
        lasts = timedelta(0)
        drawn = (job, debt.owner, payer, debt.currency, amount_minor, None, lasts, "not", rule_name)
        earnings = [self._earning(drawn)]
        if debt.creditor is not None and debt.creditor != payer:
            # The creditor earns in the same release.
            of_creditor = (f"{job}-too", debt.creditor, payer, debt.currency, 10, None, lasts, "not", None)
            earnings.append(self._earning(of_creditor))
        self._add_many(earnings)
        for hold in self.model.holds_of(job)[:1] if early else ():
            half = {"amount": part_text("half", hold.held_minor, debt.currency)}
            self._release_early(
                {"hold_id": hold.hold_id, **half},
                ADMIN,
                as_admin=True,
                min_days=0,
                reference=self._key(True),
            )
        self.release("release_matured", False, 1000, None, 1, False, timedelta(0), pick)

    @precondition(there_are_holds)
    @rule(
        which=st.sampled_from([*["a debtor"] * 5, "somebody"]),
        rich=st.sampled_from([True, True, False]),
        keyed=KEYED,
        pick=PICK,
    )
    def recover(self, which: str, rich: bool, keyed: bool, pick: int) -> None:
        """Mostly of a debtor who has got a deposit."""
        owed = self._debts(pick) if which == "a debtor" else []
        owner = choose(owed, pick).owner if owed else choose(("worker-1", "client-1", "stranger-1"), pick)
        if owed and rich:
            debt = choose(owed, pick)
            amount_minor = max(1, debt.outstanding_minor // choose((1, 2), pick))
            self._move("DEPOSIT", owner, part_text("all", amount_minor, debt.currency), debt.currency)
        self._recover(owner, self._key(keyed))

    def _recover(self, owner: str, reference: str | None, *, reason: str | None = None) -> None:
        arguments: dict[str, Any] = {"owner": owner, "by": ADMIN, "reason": reason, "reference": reference}

        def model(got: DebtRecovery | None) -> str:
            replayed = reference in self.model.debt_keys
            paid = self.model.recover_debts(**arguments, now=self.now)
            assert got is not None
            recovered: Counter[str] = Counter()
            for debt_id, paid_minor in paid.items():
                recovered[self.model.debts[debt_id].currency] += paid_minor
            assert (got.recovered_minor, got.replayed) == (recovered, replayed)
            assert {each.debt_id: each.amount_minor for each in got.debts} == paid
            if replayed:
                return "replayed"
            again = partial(self._recover, owner, reference)
            return self._keep("recover_debts", reference, "done", again)

        self._call_both(
            "recover_debts",
            self._committed(lambda connection: recover_debts(connection, **arguments, now=self.now)),
            model,
        )

    @precondition(there_are_holds)
    @rule(which=st.sampled_from([*["open"] * 6, "any", "unknown"]), keyed=KEYED, pick=PICK)
    def forgive(self, which: str, keyed: bool, pick: int) -> None:
        owed = self._debts(pick) if which == "open" else list(self.model.debts.values())
        # Most debts are left for recoveries.
        if which == "open" and pick % 3:
            return
        debt_id = choose(owed, pick).debt_id if owed and which != "unknown" else choose(UNKNOWN_IDS, pick)
        self._forgive(debt_id, self._key(keyed))

    def _forgive(self, debt_id: int, reference: str | None, *, reason: str = "cannot pay") -> None:
        arguments: dict[str, Any] = {
            "debt_id": debt_id,
            "by": ADMIN,
            "reason": reason,
            "reference": reference,
        }

        def model(got: Forgiven | None) -> str:
            replayed = reference in self.model.debt_keys
            debt, amount_minor = self.model.forgive_debt(**arguments, now=self.now)
            assert got == Forgiven(
                debt_id=debt_id,
                owner=debt.owner,
                currency=debt.currency,
                amount_minor=amount_minor,
                replayed=replayed,
            )
            if replayed:
                return "replayed"
            self._reach("a debt paid in part is forgiven", amount_minor < debt.amount_minor)
            return self._keep("forgive_debt", reference, "done", partial(self._forgive, debt_id, reference))

        self._call_both(
            "forgive_debt",
            self._committed(lambda connection: forgive_debt(connection, **arguments, now=self.now)),
            model,
        )
