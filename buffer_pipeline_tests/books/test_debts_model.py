"""Random claw-backs, releases, movements and debts, compared with a model in plain Python after each step."""

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.debts import Clawback, ClawbackTo, claw_back, forgive_debt, recover_debts
from buffer_pipeline.errors import DebtRefused, InsufficientFunds, StateRefused
from buffer_pipeline.intake import add_pending_earnings
from buffer_pipeline.money import format_amount, split_in_proportion
from buffer_pipeline.release import ReleasePosition, ReleaseRange, Shard, release_early, release_matured
from buffer_pipeline.release.matured import release_range
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline.tables import debt, wallet
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.support.builders import ADMIN, NOON, bring_in
from buffer_pipeline_tests.support.rules import add
from buffer_pipeline_tests.support.scale import count

SEEDS: Final = count("DEBT_SEEDS", part=10, whole=60)
STEPS: Final = 100
OWNERS: Final = ("worker-1", "worker-2", "client-1", "client-2", "shop")
PERCENTS: Final = {None: 100, "half": 50, "none": 0, "odd": 33}


@dataclass
class Held:
    """A hold of the model: what it holds, has earned, and has given back."""

    hold_id: int
    owner: str
    payer: str
    percent: int
    held: int
    earned: int = 0
    given: int = 0


@dataclass
class Owed:
    """A debt of the model. Without a creditor it is for a bank."""

    debt_id: int
    owner: str
    creditor: str | None
    opened_at: datetime
    left: int


@dataclass
class Model:
    """What the books should say."""

    balances: Counter[str] = field(default_factory=Counter)
    earnings: list[list[Held]] = field(default_factory=list)
    debts: list[Owed] = field(default_factory=list)

    def pay(self, budgets: dict[str, int]) -> int:
        """Pay debts from balances, the oldest first; return how much."""
        paid = 0
        received: Counter[str] = Counter()
        for owed in sorted(self.debts, key=lambda each: (each.opened_at, each.debt_id)):
            part = min(owed.left, budgets.get(owed.owner, 0))
            if part:
                owed.left -= part
                budgets[owed.owner] -= part
                self.balances[owed.owner] -= part
                if owed.creditor:
                    received[owed.creditor] += part
                paid += part
        self.balances.update(received)
        return paid

    def release(self, holds: list[Held], amounts: list[int]) -> int:
        """Release an amount of each hold, and pay debts from it."""
        budgets: dict[str, int] = {}
        for hold, amount in zip(holds, amounts, strict=True):
            hold.held -= amount
            hold.earned += amount
            self.balances[hold.owner] += amount
            budgets[hold.owner] = budgets.get(hold.owner, 0) + amount * hold.percent // 100
        return self.pay(budgets)


class Story:
    """One random sequence of verbs on the books and on the model."""

    def __init__(self, connection: Connection, seed: int) -> None:
        self.connection = connection
        self.random = random.Random(seed)
        self.model = Model()
        self.now = NOON
        self.number = 0
        self.seen: Counter[str] = Counter()

    def reference(self) -> str:
        self.number += 1
        return f"reference-{self.number}"

    def earn(self) -> None:
        payee, payer = self.random.sample(OWNERS[:4], 2)
        rule = self.random.choice(list(PERCENTS))
        amount = self.random.randint(2, 900)
        shares = (
            [Share(kind=ShareKind.PAYEE), Share(kind=ShareKind.FEE, owner="shop", amount="0.01")]
            if self.random.random() < 0.5
            else [Share(kind=ShareKind.PAYEE)]
        )
        reference = self.reference()
        added = add_pending_earnings(
            self.connection,
            reference=reference,
            job=f"job-{reference}",
            payee=payee,
            payer=payer,
            amount=format_amount(amount, 2),
            currency="PHP",
            rule=rule,
            shares=shares,
            release_date=self.now + timedelta(hours=self.random.randint(0, 20)),
            now=self.now,
        )
        percent = PERCENTS[rule]
        holds = [Held(added.hold_id, payee, payer, percent, amount)]
        if len(shares) > 1:
            holds[0].held -= 1
            holds.append(Held(added.hold_id + 1, "shop", payer, percent, 1))
        self.model.earnings.append(holds)

    def release_what_is_due(self) -> None:
        self.now += timedelta(hours=self.random.choice((0, 5, 30)))
        dates: dict[int, datetime] = dict(self.connection.exec_driver_sql(DUE).all())
        holds = [
            hold
            for earning in self.model.earnings
            for hold in earning
            if hold.held and dates[hold.hold_id] <= self.now
        ]
        if self.random.random() < 0.5:
            batch = release_matured(self.connection, now=self.now, batch_limit=1000)
        else:
            everything = ReleaseRange(
                after=ReleasePosition(), through=ReleasePosition.end(self.now), shard=Shard()
            )
            with self.connection.begin_nested():
                batch = release_range(
                    self.connection, hold_range=everything, now=self.now, due_by=self.now, source="story"
                )
        recovered = self.model.release(holds, [hold.held for hold in holds])
        assert batch.holds_released == len(holds)
        assert sum(batch.recovered_minor.values()) == recovered
        self.seen["recovered by a release"] += recovered > 0

    def release_a_part(self) -> None:
        waiting = [holds for holds in self.model.earnings if all(hold.held for hold in holds)]
        if not waiting:
            return
        holds = self.random.choice(waiting)
        amount = self.random.randint(1, sum(hold.held for hold in holds))
        parts = split_in_proportion(amount, [hold.held for hold in holds])
        batch = release_early(
            self.connection,
            hold_id=holds[0].hold_id,
            amount=format_amount(amount, 2),
            by=ADMIN,
            as_admin=True,
            reason="a part",
            reference=self.reference(),
            now=self.now,
        )
        recovered = self.model.release(holds, parts)
        assert sum(batch.recovered_minor.values()) == recovered
        self.seen["recovered by a part"] += recovered > 0

    def take_back(self) -> None:
        if not self.model.earnings:
            return
        holds = self.random.choice(self.model.earnings)
        left = [hold.earned - hold.given for hold in holds]
        amount = self.random.randint(1, sum(left) + 3)
        to = self.random.choice(list(ClawbackTo))
        others = [None, *({"shop", "client-1", "worker-2"} - {holds[0].owner, holds[0].payer})]
        advancer = self.random.choice([other for other in others if other in (None, *self.model.balances)])
        plan = self._plan(holds, left, amount) if amount <= sum(left) else None
        advance = sum(owed for _, _, owed in plan or ())
        own = sum(taken + owed for hold, taken, owed in plan or () if hold.owner == advancer)
        done: Clawback | None
        try:
            done = claw_back(
                self.connection,
                hold_id=holds[0].hold_id,
                amount=format_amount(amount, 2),
                to=to,
                by=ADMIN,
                reason="a fraud",
                reference=self.reference(),
                advanced_by=advancer,
                now=self.now,
            )
        except (InsufficientFunds, StateRefused):
            done = None
        is_short = advancer is not None and self.model.balances[advancer] - own < advance
        assert (done is None) == (plan is None or is_short)
        if done is None or plan is None:
            self.seen["refused"] += 1
            return
        creditor = advancer or (holds[0].payer if to is ClawbackTo.PAYER else None)
        ids = iter(done.debt_ids)
        for hold, taken, owed in plan:
            hold.given += taken + owed
            self.model.balances[hold.owner] -= taken
            if owed:
                self.model.debts.append(Owed(next(ids), hold.owner, creditor, self.now, owed))
                if advancer:
                    self.model.balances[advancer] -= owed
            if to is ClawbackTo.PAYER:
                self.model.balances[hold.payer] += taken + (owed if advancer else 0)
        assert done.debt_minor == advance
        self.seen["taken back with a debt" if advance else "taken back"] += 1

    def _plan(self, holds: list[Held], left: list[int], amount: int) -> list[tuple[Held, int, int]]:
        plan = []
        balances = Counter(self.model.balances)
        for hold, part in zip(holds, split_in_proportion(amount, left), strict=True):
            if part:
                taken = min(part, balances[hold.owner])
                balances[hold.owner] -= taken
                plan.append((hold, taken, part - taken))
        return plan

    def move(self) -> None:
        owner = self.random.choice(OWNERS)
        amount = self.random.randint(1, 700)
        arguments = {"owner": owner, "currency": "PHP", "reference": self.reference(), "now": self.now}
        if self.random.random() < 0.25:
            deposit(self.connection, amount=format_amount(amount, 2), **arguments)  # type: ignore[arg-type]
            self.model.balances[owner] += amount
        elif self.model.balances[owner]:
            amount = self.model.balances[owner]
            withdraw(self.connection, amount=format_amount(amount, 2), **arguments)  # type: ignore[arg-type]
            self.model.balances[owner] = 0

    def recover(self) -> None:
        owner = self.random.choice(OWNERS)
        try:
            done = recover_debts(self.connection, owner=owner, by=ADMIN, now=self.now)
        except (DebtRefused, InsufficientFunds):
            owes = any(owed.left for owed in self.model.debts if owed.owner == owner)
            assert not (owes and self.model.balances[owner])
            return
        assert sum(done.recovered_minor.values()) == self.model.pay({owner: self.model.balances[owner]})
        self.seen["recovered on request"] += 1

    def forgive(self) -> None:
        open_debts = [owed for owed in self.model.debts if owed.left]
        if not open_debts or self.random.random() < 0.6:
            return
        owed = self.random.choice(open_debts)
        forgive_debt(self.connection, debt_id=owed.debt_id, by=ADMIN, reason="poor", now=self.now)
        if owed.creditor:
            self.model.balances[owed.creditor] += owed.left
        owed.left = 0
        self.seen["forgiven"] += 1

    def compare(self) -> None:
        balances = dict(self.connection.execute(select(wallet.c.owner, wallet.c.balance_minor)).all())
        debts = dict(self.connection.execute(select(debt.c.debt_id, debt.c.outstanding_minor)).all())
        assert balances == {owner: self.model.balances[owner] for owner in balances}
        assert debts == {owed.debt_id: owed.left for owed in self.model.debts}


DUE: Final = "SELECT hold_id, release_date FROM buffer.hold_status"


def test_debts_follow_the_model(connection: Connection) -> None:
    """Balances and debts are those of the model after each verb, and the books balance at the end."""
    bring_in(connection, PHP=2)
    for name, percent in PERCENTS.items():
        if name is not None:
            add(connection, name=name, recovery_percent=percent)
    seen: Counter[str] = Counter()

    for seed in range(SEEDS):
        with connection.begin_nested() as savepoint:
            story = Story(connection, seed)
            verbs = [
                *(story.earn, story.release_what_is_due, story.take_back) * 3,
                *(story.move,) * 5,
                *(story.release_a_part, story.recover) * 3,
                story.forgive,
            ]
            for _ in range(STEPS):
                story.random.choice(verbs)()
                story.compare()
            assert reconcile(connection) == []
            seen += story.seen
            savepoint.rollback()

    assert set(TO_BE_SEEN) <= set(seen)


TO_BE_SEEN: Final = (
    "forgiven",
    "recovered by a release",
    "refused",
    "taken back",
    "taken back with a debt",
)
