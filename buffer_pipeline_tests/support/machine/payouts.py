"""Rules that pay owners out: destinations, requests, batches, and what the bank says."""

from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from buffer_pipeline.payouts import (
    Payout,
    PayoutBatch,
    PayoutBatchState,
    PayoutMethod,
    PayoutState,
    approve_payout_batch,
    cancel_payout,
    cancel_payout_batch,
    make_payout_batch,
    request_payout,
    send_payout_batch,
    set_destination,
)
from buffer_pipeline.payouts.destination import Destination
from buffer_pipeline.policy import PayoutPolicy
from buffer_pipeline_tests.support.builders import ADMIN, NOON
from buffer_pipeline_tests.support.machine.drawn import (
    CURRENCIES,
    OWNERS,
    PICK,
    UNKNOWN_IDS,
    choose,
    part_text,
)
from buffer_pipeline_tests.support.machine.wallets import WalletRules
from buffer_pipeline_tests.support.model.payouts import WAIT
from buffer_pipeline_tests.support.model.records import ModelPayoutBatch

ACCOUNTS: Final = {
    PayoutMethod.IBAN: ("DE89370400440532013000", "FR1420041010050500013M02606"),
    PayoutMethod.TOKEN: ("token-of-a-provider", "another-token-of-it"),
}
METHODS: Final = {
    "worker-1": PayoutMethod.IBAN,
    "worker-2": PayoutMethod.TOKEN,
    "worker-3": PayoutMethod.IBAN,
    "client-1": PayoutMethod.IBAN,
    "client-2": PayoutMethod.TOKEN,
}
"""The owners who have a destination at first, set long ago."""
MAKERS: Final = ("finance-1", "finance-2")
POLICY: Final = PayoutPolicy(minimums={"PHP": "0.02"}, four_eyes_above={"JPY": "5", "KWD": "0.010"})
DECISIONS: Final[dict[str, tuple[Any, str, str]]] = {
    "approve": (approve_payout_batch, "APPROVED", "MADE"),
    "send": (send_payout_batch, "SENT", "APPROVED"),
    "cancel": (cancel_payout_batch, "CANCELLED", "MADE"),
}
"""The verb, the state that it leads to, and the state of the batches that are mostly chosen for it."""


class PayoutRules(WalletRules):
    """Balances are paid out."""

    def _begin(self) -> None:
        super()._begin()
        now, self.now = self.now, NOON - WAIT
        for owner, method in METHODS.items():
            self._set_destination(owner, method, ACCOUNTS[method][0])
        self.now = now

    # ---- requests

    @rule(
        owner=st.sampled_from(["worker-1", "worker-2", "client-1", "worker-3", "platform-1"]),
        of_batch=st.booleans(),
        method=st.sampled_from(PayoutMethod),
        second=st.booleans(),
        waits=st.sampled_from([True, True, False]),
    )
    def change_destination(
        self, owner: str, of_batch: bool, method: PayoutMethod, second: bool, waits: bool
    ) -> None:
        """An owner's account changes, perhaps of one whose payout is in a batch. Mostly the owner has
        waited after that, so that batches find something.
        """
        batches = [*self._batches("MADE"), *self._batches("APPROVED")] if of_batch else []
        if of_batch and second and not batches:
            batches = self._make_something(0)
        if batches:
            owner = self.model.in_batch(batches[0])[0].owner
        self._set_destination(owner, method, ACCOUNTS[method][second])
        if batches and second:
            self._send(batches[0])
        elif waits:
            self.now += WAIT

    def _set_destination(self, owner: str, method: PayoutMethod, account: str) -> None:
        arguments: dict[str, Any] = {"owner": owner, "method": method, "account": account}
        if method is PayoutMethod.IBAN:
            arguments["holder_name"] = "Holder"

        def model(got: Destination | None) -> str:
            assert got is not None
            assert (got.owner, got.method) == (owner, method)
            assert account not in repr(got)
            self.model.set_destination(owner, method.value, account, now=self.now)
            return "done"

        self._call_both(
            "set_destination",
            self._committed(
                lambda connection: set_destination(
                    connection, **arguments, by=ADMIN, reason="a new account", now=self.now
                )
            ),
            model,
        )

    @rule(
        which=st.sampled_from([*["rich"] * 8, "frozen", "frozen", "indebted", "indebted", "any"]),
        owner=OWNERS,
        currency=CURRENCIES,
        part=st.sampled_from(
            [*["everything"] * 4, "one unit", "half", "half", "all", "above", "places", "zero"]
        ),
        override=st.sampled_from([False, False, False, True]),
        again=st.sampled_from([*["no"] * 6, "the same", "another amount", "no reason"]),
        pick=PICK,
    )
    def ask_for_payout(
        self, which: str, owner: str, currency: str, part: str, override: bool, again: str, pick: int
    ) -> None:
        """Mostly of an owner with money and a destination."""
        whose = self._payable(which)
        if not whose and which != "any":
            self._move("DEPOSIT", "worker-1", part_text("all", 500 + pick, "PHP"), "PHP")
            whose = [("worker-1", "PHP")]
        if whose:
            owner, currency = choose(whose, pick)
        elif part in ("places", "zero"):
            # One fault at a time: the books know no places of a currency that they have never seen.
            part = "one unit"
        wallet = self.model.wallets.get((owner, currency))
        balance_minor = wallet.balance_minor if wallet else 0
        amount = None if part == "everything" else part_text(part, balance_minor, currency)
        arguments: dict[str, Any] = {
            "owner": owner,
            "currency": currency,
            "amount": amount,
            "everything": amount is None,
            "override": override,
            "reason": "checked by phone" if override else None,
        }
        if again == "no reason":
            self._request_payout({**arguments, "override": not override}, f"payout-{next(self.numbers)}")
        elif again != "no" and self.model.payout_keys:
            self._request_again(again, pick)
        else:
            self._request_payout(arguments, f"payout-{next(self.numbers)}")

    def _payable(self, which: str) -> list[tuple[str, str]]:
        rich = [
            whose
            for whose, wallet in self.model.wallets.items()
            if wallet.balance_minor and whose[0] in self.model.destinations
        ]
        return {
            "rich": rich,
            "frozen": [whose for whose in rich if self.model.frozen_owner(whose[0]) is not None] or rich,
            "indebted": [whose for whose in rich if self.model.open_debts_of(whose[0])] or rich,
        }.get(which, [])

    def _request_again(self, again: str, pick: int) -> None:
        reference = choose(list(self.model.payout_keys), pick)
        known = self.model.payouts[self.model.payout_keys[reference]]
        amount_minor = known.amount_minor + (again == "another amount")
        named = not known.everything or again == "another amount"
        self._request_payout(
            {
                "owner": known.owner,
                "currency": known.currency,
                "amount": part_text("all", amount_minor, known.currency) if named else None,
                "everything": not named,
                "override": known.override_reason is not None,
                "reason": known.override_reason,
            },
            reference,
        )

    def _request_payout(self, arguments: dict[str, Any], reference: str) -> None:
        owner, currency = arguments["owner"], arguments["currency"]
        given = {**arguments, "by": owner, "reference": reference}

        def model(got: Payout | None) -> str:
            replayed = reference in self.model.payout_keys
            payout = self.model.request_payout(
                **given,
                now=self.now,
                minimum=POLICY.minimums.get(currency),
                payout_id=None if got is None else got.payout_id,
            )
            assert got == Payout(
                payout_id=payout.payout_id,
                owner=owner,
                currency=currency,
                amount_minor=payout.amount_minor,
                state=PayoutState(payout.state),
                replayed=replayed,
            )
            if replayed:
                return "replayed"
            overridden = payout.override_reason is not None
            self._reach("an override passes a freeze", overridden and bool(self.model.frozen_owner(owner)))
            self._reach("an override passes a debt", overridden and bool(self.model.open_debts_of(owner)))
            return "done, with an override" if overridden else "done"

        self._call_both(
            "request_payout",
            self._committed(
                lambda connection: request_payout(connection, **given, policy=POLICY, now=self.now)
            ),
            model,
        )

    @rule(
        which=st.sampled_from(["REQUESTED", "BATCHED", "BATCHED", "CANCELLED", "any", "unknown"]),
        reason=st.sampled_from(["asked", "asked", "a mistake"]),
        pick=PICK,
    )
    def cancel_a_payout(self, which: str, reason: str, pick: int) -> None:
        if not self.model.payouts or (which == "BATCHED" and pick % 2):
            self._make_something(pick)
        payouts = list(self.model.payouts.values())
        if not payouts:
            return
        named = choose([payout for payout in payouts if payout.state == which] or payouts, pick)
        payout_id = choose(UNKNOWN_IDS, pick) if which == "unknown" else named.payout_id
        batch = named.batch
        arguments: dict[str, Any] = {"payout_id": payout_id, "by": ADMIN, "reason": reason}

        def model(got: Payout | None) -> str:
            replayed = payout_id == named.payout_id and named.cancelled_with == (ADMIN, reason)
            payout = self.model.cancel_payout(**arguments, now=self.now)
            assert got is not None
            assert (got.payout_id, got.amount_minor) == (payout_id, payout.amount_minor)
            assert (got.state, got.replayed) == (PayoutState.CANCELLED, replayed)
            if batch is not None and not replayed:
                self._reach("a batch loses a payout", batch.state != "CANCELLED")
                self._reach("a batch loses its last payout", batch.state == "CANCELLED")
            return "replayed" if replayed else "done"

        self._call_both(
            "cancel_payout",
            self._committed(lambda connection: cancel_payout(connection, **arguments, now=self.now)),
            model,
        )

    # ---- batches

    def _batches(self, state: str) -> list[ModelPayoutBatch]:
        return [batch for batch in self.model.payout_batches.values() if batch.state == state]

    def _make_something(self, pick: int) -> list[ModelPayoutBatch]:
        """Make a batch of two payouts of an owner, who perhaps has a new destination; return what is made."""
        owner = choose(("worker-1", "worker-2", "client-1"), pick)
        currency = choose(("PHP", "JPY"), pick // 2)
        method = PayoutMethod(self.model.destinations[owner].method)
        is_new = pick % 4 == 3
        if is_new:
            self._set_destination(owner, method, ACCOUNTS[method][1])
        for number in range(2):
            self._move("DEPOSIT", owner, part_text("all", 9, currency), currency)
            override = is_new or number == 0
            self._request_payout(
                {
                    "owner": owner,
                    "currency": currency,
                    "amount": part_text("all", 2, currency),
                    "everything": False,
                    "override": override,
                    "reason": "in a hurry" if override else None,
                },
                f"payout-{next(self.numbers)}",
            )
        self._make(currency, method, MAKERS[0])
        return self._batches("MADE")

    def _send(self, batch: ModelPayoutBatch) -> None:
        """Approve a batch as somebody else, if it is not, and send it."""
        if batch.state == "MADE":
            self._decide_payouts("approve", batch.payout_batch_id, MAKERS[batch.made_by == MAKERS[0]])
        self._decide_payouts("send", batch.payout_batch_id, batch.made_by)

    @precondition(lambda machine: bool(machine.model.payouts))
    @rule(
        verb=st.sampled_from([*["on"] * 5, *["make"] * 3, "approve", "approve", "send", "cancel", "cancel"]),
        by=st.sampled_from([*["other"] * 2, *MAKERS]),
        which=st.sampled_from([*["fitting"] * 8, "any", "unknown"]),
        method=st.sampled_from([None, None, *PayoutMethod]),
        currency=CURRENCIES,
        pick=PICK,
    )
    def go_on_with_batch(
        self, verb: str, by: str, which: str, method: PayoutMethod | None, currency: str, pick: int
    ) -> None:
        """Make a batch, or bring one a step on; "other" is somebody else than its maker."""
        batches = list(self.model.payout_batches.values())
        if verb == "on":
            waiting = [batch for batch in batches if batch.state in ("MADE", "APPROVED")]
            verb = {"MADE": "approve", "APPROVED": "send"}[waiting[0].state] if waiting else "make"
        if verb == "make" or not batches:
            requested = [one for one in self.model.payouts.values() if one.state == "REQUESTED"]
            if requested and pick % 8:
                currency = choose(requested, pick).currency
            self._make(currency, method, choose(MAKERS, pick))
            return
        fitting = self._batches(DECISIONS[verb][2])
        if not fitting and which == "fitting" and verb != "send":
            fitting = self._make_something(pick)
        batch = choose(fitting if fitting and which == "fitting" else batches, pick)
        who = MAKERS[batch.made_by == MAKERS[0]] if by == "other" else by
        batch_id = choose(UNKNOWN_IDS, pick) if which == "unknown" else batch.payout_batch_id
        self._decide_payouts(verb, batch_id, who)

    def _make(self, currency: str, method: PayoutMethod | None, by: str) -> None:
        arguments: dict[str, Any] = {"currency": currency, "by": by, "method": method}

        def model(got: PayoutBatch | None) -> str:
            batch = self.model.make_payout_batch(
                currency=currency,
                by=by,
                method=method,
                four_eyes_above=POLICY.four_eyes_above.get(currency),
                now=self.now,
                payout_batch_id=None if got is None else got.payout_batch_id,
            )
            self._same_batch(got, batch, replayed=False)
            left = [
                one
                for one in self.model.payouts.values()
                if one.state == "REQUESTED" and one.currency == currency
            ]
            self._reach("a batch leaves payouts to wait", bool(left))
            self._reach("a batch has several payouts", batch.payouts > 1)
            self._reach(
                "an override passes a new destination",
                any(
                    self.model.destinations[one.owner].set_at > self.now - WAIT
                    for one in self.model.in_batch(batch)
                ),
            )
            return "done"

        self._call_both(
            "make_payout_batch",
            self._committed(
                lambda connection: make_payout_batch(connection, **arguments, policy=POLICY, now=self.now)
            ),
            model,
        )

    def _decide_payouts(self, verb: str, batch_id: int, by: str) -> None:
        real, state, _ = DECISIONS[verb]
        arguments: dict[str, Any] = {"payout_batch_id": batch_id, "by": by}
        if verb == "cancel":
            arguments["reason"] = "a mistake"

        def model(got: PayoutBatch | None) -> str:
            batch, replayed = self.model.decide_payout_batch(state, **arguments, now=self.now)
            self._same_batch(got, batch, replayed=replayed)
            self._reach("a small batch is approved by its maker", state == "APPROVED" and by == batch.made_by)
            return "replayed" if replayed else "done"

        self._call_both(
            f"{verb}_payout_batch",
            self._committed(lambda connection: real(connection, **arguments, now=self.now)),
            model,
        )

    def _same_batch(self, got: PayoutBatch | None, batch: ModelPayoutBatch, *, replayed: bool) -> None:
        assert got == PayoutBatch(
            payout_batch_id=batch.payout_batch_id,
            currency=batch.currency,
            method=PayoutMethod(batch.method),
            state=PayoutBatchState(batch.state),
            payouts=batch.payouts,
            amount_minor=batch.amount_minor,
            four_eyes=batch.four_eyes,
            replayed=replayed,
        )
