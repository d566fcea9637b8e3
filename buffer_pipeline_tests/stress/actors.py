"""Threads that use the books like a badly behaved platform."""

import random
import time
from dataclasses import dataclass
from itertools import islice
from typing import Final

from buffer_pipeline_tests.stress.judge import may_run_again
from buffer_pipeline_tests.stress.record import Call, Kind, Outcome
from buffer_pipeline_tests.stress.sessions import (
    HIGHER_LEVELS,
    LOCK_NOT_AVAILABLE,
    READ_COMMITTED,
    Sessions,
    driver_error,
)
from buffer_pipeline_tests.stress.stage import Mode, Round
from buffer_pipeline_tests.stress.transactions import Transaction
from buffer_pipeline_tests.stress.verbs import ALL_VERBS, MOSTLY_FREEZES, Draw

ATTEMPTS_MAX: Final = 6
_NOTES_OF_WALLETS: Final = (
    "INSERT INTO stress.note (wallet_id) SELECT wallet_id FROM buffer.wallet WHERE owner = ANY(%(owners)s)"
)
_NOTES_OF_HOLDS: Final = "INSERT INTO stress.note (hold_id) SELECT unnest(CAST(%(hold_ids)s AS bigint[]))"
_HAVE_A_REFERENCE: Final = {"add", "add many", "deposit", "withdraw"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The properties of a transaction."""

    kind: Kind
    isolation: str
    verbs: int
    snapshot_first: bool = False
    lock_timeout: bool = False
    idle_seconds: float = 0.0
    gives_up: bool = False
    loses_answer: bool = False
    """The commit succeeds, but its caller does not learn of it."""


class Actor:
    """One thread of the platform: transaction after transaction, with pauses."""

    def __init__(self, round_: Round, name: str) -> None:
        self.name = name
        self._round = round_
        self._trail = round_.findings.trail(name)
        self._chance = random.Random(f"{round_.seed} {name}")
        weights = ALL_VERBS if round_.mode is Mode.ALONE else MOSTLY_FREEZES
        self._draw = Draw(round_.market, self._chance, weights)
        self.sessions = Sessions(round_.platform)

    def work(self) -> None:
        """Run one transaction, and retry it if PostgreSQL was allowed to end it."""
        chance = self._chance
        if chance.random() < 0.15:
            self._write_notes()
            return
        alone = self._round.mode is Mode.ALONE or chance.random() < 0.4
        isolation = READ_COMMITTED if alone or chance.random() < 0.4 else chance.choice(HIGHER_LEVELS)
        plan = Plan(
            kind=Kind.ALONE if alone else Kind.SEVERAL,
            isolation=isolation,
            verbs=1 if alone or chance.random() < 0.4 else chance.randint(2, 4),
            snapshot_first=not alone and chance.random() < 0.6,
            lock_timeout=chance.random() < 0.1,
            idle_seconds=self._idle_seconds(),
            gives_up=chance.random() < 0.08,
            loses_answer=chance.random() < 0.03,
        )
        calls: list[Call] = []
        for _ in range(ATTEMPTS_MAX):
            if self._attempt(plan, calls):
                break
        self._pause(0.006)

    def _idle_seconds(self) -> float:
        """Return how long a transaction stays open, with its locks, after its last verb."""
        drawn = self._chance.random()
        shortest, longest = (0.0, 0.01) if drawn < 0.97 else (0.1, 1.2) if drawn < 0.998 else (6.0, 8.0)
        return self._chance.uniform(shortest, longest)

    def _attempt(self, plan: Plan, calls: list[Call]) -> bool:
        """Run the transaction once; return False if it must be retried. `calls` are those drawn so far."""
        round_ = self._round
        transaction: Transaction | None = None
        try:
            with Transaction(
                round_.ground,
                self.sessions,
                self._trail,
                kind=plan.kind,
                isolation=plan.isolation,
                psycopg_own=self._chance.random() < 0.5,
            ) as transaction:
                self._run(transaction, plan, calls)
        except Exception as error:
            caused = driver_error(error)
            if caused is None:
                raise
            again = may_run_again(
                round_, self._trail, caused, transaction=transaction, lock_timeout=plan.lock_timeout
            )
            if again:
                calls[:] = [call.again(round_.market.clock.read()) for call in calls]
            return not again
        finally:
            if transaction is not None:
                self._settle(transaction)
        return True

    def _run(self, transaction: Transaction, plan: Plan, calls: list[Call]) -> None:
        mixed = plan.kind is Kind.SEVERAL
        self._draw.mine.clear()
        if plan.lock_timeout:
            transaction.execute("SET LOCAL lock_timeout = '1s'")
        if plan.snapshot_first:
            transaction.execute("SELECT FROM buffer.wallet LIMIT 1")
            self._pause(0.06)
        for place in range(plan.verbs):
            if place == len(calls):
                calls.append(self._draw.call())
            if mixed and self._chance.random() < 0.35:
                self._perform_in_savepoint(transaction, calls[place])
            else:
                transaction.perform(calls[place])
                self._remember(calls[place])
            if mixed:
                self._pause(0.03)
        time.sleep(plan.idle_seconds)
        if plan.gives_up:
            self._round.tally.count("transaction given up")
        else:
            transaction.commit()
            if plan.loses_answer:
                transaction.attempt.outcome = Outcome.UNKNOWN

    def _perform_in_savepoint(self, transaction: Transaction, call: Call) -> None:
        """Perform a call and roll it back at random, or if it did not get a lock in time."""
        before = len(transaction.attempt.calls)
        transaction.execute("SAVEPOINT here")
        try:
            transaction.perform(call)
        except Exception as error:
            caused = driver_error(error)
            if caused is None or caused.sqlstate != LOCK_NOT_AVAILABLE:
                raise
            transaction.undo("here", before)
            return
        if self._chance.random() < 0.4:
            transaction.undo("here", before)
            self._round.tally.count("savepoint rolled back")
        else:
            self._remember(call)

    def _write_notes(self) -> None:
        """Write rows of the platform that refer to wallets and holds, and keep their locks for a moment."""
        market = self._round.market
        owners = [market.owner(self._chance) for _ in range(6)]
        try:
            with Transaction(
                self._round.ground, self.sessions, self._trail, kind=Kind.NOTES, isolation=READ_COMMITTED
            ) as transaction:
                transaction.execute(_NOTES_OF_WALLETS, {"owners": owners})
                if self._chance.random() < 0.5:
                    transaction.execute(_NOTES_OF_HOLDS, {"hold_ids": market.job(self._chance).holds[-8:]})
                self._pause(0.3)
                transaction.commit()
        except Exception as error:
            caused = driver_error(error)
            if caused is None:
                raise
            may_run_again(self._round, self._trail, caused, transaction=None)

    def _remember(self, call: Call) -> None:
        """Let later verbs of the transaction use what it has added."""
        for added in call.answer if isinstance(call.answer, list) else [call.answer]:
            if hold_id := getattr(added, "hold_id", None):
                self._draw.mine.append(hold_id)

    def _settle(self, transaction: Transaction) -> None:
        attempt, tally = transaction.attempt, self._round.tally
        tally.count(f"transaction {attempt.outcome}")
        tally.count(f"isolation {attempt.isolation}")
        if attempt.outcome is Outcome.COMMITTED:
            for call in attempt.calls:
                if not call.undone:
                    tally.answered(call)
                    self._round.market.learn(call)
        elif attempt.outcome is Outcome.UNKNOWN:
            # A platform that lost the answer sends the request again with its reference.
            for call in islice((call for call in attempt.calls if call.verb in _HAVE_A_REFERENCE), 4):
                plan = Plan(kind=Kind.ALONE, isolation=READ_COMMITTED, verbs=1)
                self._attempt(plan, [call.again(self._round.market.clock.read())])

    def _pause(self, seconds_max: float) -> None:
        time.sleep(self._chance.uniform(0, seconds_max))
