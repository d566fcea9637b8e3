"""Rules that deposit and withdraw."""

from hypothesis import strategies as st
from hypothesis.stateful import rule

from buffer_pipeline.wallet import Movement, deposit, withdraw
from buffer_pipeline_tests.support.machine.comparing import ComparingMachine
from buffer_pipeline_tests.support.machine.drawn import AMOUNTS, CURRENCIES, OWNERS, PICK, amount_text, choose


class WalletRules(ComparingMachine):
    """Money is deposited and withdrawn."""

    @rule(
        verb=st.sampled_from(["deposit", "withdraw", "withdraw", "move again"]),
        owner=OWNERS,
        currency=CURRENCIES,
        amount_minor=AMOUNTS,
        part=st.sampled_from(["one unit", "half", "all", "above", "with what is pending"]),
        change=st.sampled_from(["nothing", "nothing", "type", "owner", "amount", "currency"]),
        pick=PICK,
    )
    def move(
        self, verb: str, owner: str, currency: str, amount_minor: int, part: str, change: str, pick: int
    ) -> None:
        if verb == "withdraw":
            self._withdraw(owner, currency, part, pick)
        elif verb == "move again" and self.model.movements:
            self._move_again(change, pick)
        else:
            self._move("DEPOSIT", owner, amount_text(amount_minor, currency), currency)

    def _withdraw(self, owner: str, currency: str, part: str, pick: int) -> None:
        wallets = self.model.wallets
        with_money = [whose for whose, wallet in wallets.items() if wallet.balance_minor]
        if with_money and pick % 5:
            owner, currency = choose(with_money, pick)
        wallet = wallets.get((owner, currency))
        balance_minor = wallet.balance_minor if wallet else 0
        amount_minor = {
            "one unit": 1,
            "half": balance_minor // 2,
            "all": balance_minor,
            "above": balance_minor + 1,
            "with what is pending": balance_minor + (wallet.pending_minor if wallet else 0),
        }[part]
        self._move("WITHDRAWAL", owner, amount_text(max(1, amount_minor), currency), currency)

    def _move_again(self, change: str, pick: int) -> None:
        reference = choose(list(self.model.movements), pick)
        type_, owner, currency, amount_minor = self.model.movements[reference]
        if change == "type":
            type_ = "WITHDRAWAL" if type_ == "DEPOSIT" else "DEPOSIT"
        elif change == "owner":
            owner = "stranger-9"
        elif change == "currency":
            currency = "JPY" if currency == "PHP" else "PHP"
        elif change == "amount":
            amount_minor += 1
        self._move(type_, owner, amount_text(amount_minor, currency), currency, reference=reference)

    def _move(self, type_: str, owner: str, amount: str, currency: str, *, reference: str = "") -> None:
        reference = reference or f"reference-{self._movements() + 1}"
        verb = deposit if type_ == "DEPOSIT" else withdraw
        arguments = {"owner": owner, "amount": amount, "currency": currency, "reference": reference}

        def model(got: Movement | None) -> str:
            replayed = reference in self.model.movements
            balance_minor = self.model.move(type_, now=self.now, **arguments)
            assert got is not None
            assert (got.balance_minor, got.replayed) == (balance_minor, replayed)
            return "replayed" if replayed else "done"

        self._call_both(
            verb.__name__,
            self._committed(lambda connection: verb(connection, **arguments, now=self.now)),
            model,
        )
