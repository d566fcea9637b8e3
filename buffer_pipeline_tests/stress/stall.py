"""A release while other transactions keep wallets locked: everything else must be released.

The round's threads pause meanwhile, so the due holds are known. Results decide, not times: which holds are
released,
and if a verb on other wallets has to wait.
"""

import random
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from itertools import cycle
from typing import Final

from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.release_run.worker_pool import ReleaseRun
from buffer_pipeline_tests.stress.oracle import Oracle
from buffer_pipeline_tests.stress.oracle_rows import OracleHold
from buffer_pipeline_tests.stress.record import Call, Kind
from buffer_pipeline_tests.stress.releasing import Releaser
from buffer_pipeline_tests.stress.sessions import LOCK_NOT_AVAILABLE, READ_COMMITTED, Sessions, driver_error
from buffer_pipeline_tests.stress.stage import Round
from buffer_pipeline_tests.stress.transactions import Transaction

DRAIN_SECONDS_MAX: Final = 20
"""The time limit of a release of some hundred holds that waits for nobody."""

PROBE_TIMEOUT: Final = "2s"
AHEAD: Final = timedelta(hours=8)


class Stall:
    """Sets up and runs such releases while a round's threads pause."""

    name = "stall"

    def __init__(self, round_: Round) -> None:
        self._round = round_
        self._trail = round_.findings.trail(self.name)
        self._chance = random.Random(f"{round_.seed} {self.name}")
        self._releaser = Releaser(round_, "release beside locked wallets")
        self._sessions = Sessions(round_.platform)

    def run(self, oracle: Oracle) -> None:
        """Release what is due while wallets are locked, and then the rest."""
        self._round.market.clock.leap(AHEAD)
        due = oracle.due(self._round.market.clock.read())
        owners = sorted({(hold.earning.payee, hold.earning.currency) for hold in due})
        self._chance.shuffle(owners)
        locked, probed = owners[: self._chance.choice((0, 1, 3))], owners[3:5]
        with ThreadPoolExecutor(1) as threads, ExitStack() as stack:
            for owner, currency in locked:
                stack.enter_context(self._lock(owner, currency))
            workers = self._chance.choice((1, 2))
            running = threads.submit(self._releaser.drain, workers=workers)
            self._probe(running, [hold for hold in due if _wallet(hold) in probed])
            if not running.done():
                # The locks are released at the end of this block, because the release may wait for them.
                message = f"it has {workers} workers, and these wallets are locked: {locked}"
                self._round.findings.add("a release waits for a locked wallet", message, who=self.name)
            elif running.exception() is None:
                self._require_released(due, besides={*locked, *probed})
        running.result()
        self._releaser.drain(workers=self._chance.choice((1, 2)))
        self._require_released(due, besides=set())
        self._round.tally.count("release beside locked wallets")

    def _lock(self, owner: str, currency: str) -> Transaction:
        """Return a transaction that has updated a wallet and stays idle."""
        sessions = Sessions(self._round.platform)
        transaction = self._transaction(sessions, psycopg_own=False)
        reference = f"movement-{self._round.market.number()}"
        transaction.perform(
            self._call("deposit", owner=owner, amount="5", currency=currency, reference=reference)
        )
        return transaction

    def _probe(self, running: Future[ReleaseRun], holds: list[OracleHold]) -> None:
        """Call verbs on due holds and their wallets until the release ends or takes too long."""
        deadline = time.monotonic() + DRAIN_SECONDS_MAX
        for hold in cycle(holds or [None]):
            if running.done() or time.monotonic() > deadline:
                return
            if hold is None:
                time.sleep(0.05)
                continue
            reference = f"movement-{self._round.market.number()}"
            owner, currency = _wallet(hold)
            calls = [
                self._call(
                    "freeze", hold_id=hold.hold_id, kind=FreezeKind.RISK, by="risk-2", reason="a look"
                ),
                self._call("deposit", owner=owner, amount="5", currency=currency, reference=reference),
            ]
            for call in calls:
                self._probe_once(call)

    def _probe_once(self, call: Call) -> None:
        try:
            with self._transaction(self._sessions, psycopg_own=True) as transaction:
                transaction.execute(f"SET LOCAL lock_timeout = '{PROBE_TIMEOUT}'")
                transaction.perform(call)
                # A freeze would keep the hold from being released, so only take its locks.
                if call.verb != "freeze":
                    transaction.commit()
        except Exception as error:
            caused = driver_error(error)
            if caused is None or caused.sqlstate != LOCK_NOT_AVAILABLE:
                raise
            message = f"{call}: not within {PROBE_TIMEOUT}, on a wallet that only the release can have locked"
            self._round.findings.add("a release that waits keeps a verb waiting", message, who=self.name)

    def _require_released(self, due: list[OracleHold], *, besides: set[tuple[str, str]]) -> None:
        """Find due holds that are still buffered, except those of some wallets."""
        hold_ids = [hold.hold_id for hold in due if _wallet(hold) not in besides]
        with self._round.superuser.connect() as connection:
            left = connection.exec_driver_sql(
                "SELECT hold_id, payee_wallet_id, state, release_date FROM buffer.unsettled_hold"
                " WHERE hold_id = ANY(%(hold_ids)s)",
                {"hold_ids": hold_ids},
            ).all()
        if left:
            message = f"{len(left)} of {len(hold_ids)} that were due and not locked, locked were {besides}"
            self._round.findings.add("due, and not released", message, rows=left, who=self.name)

    def _transaction(self, sessions: Sessions, *, psycopg_own: bool) -> Transaction:
        return Transaction(
            self._round.ground,
            sessions,
            self._trail,
            kind=Kind.ALONE,
            isolation=READ_COMMITTED,
            psycopg_own=psycopg_own,
        )

    def _call(self, verb: str, **arguments: object) -> Call:
        return Call(verb=verb, arguments=arguments, now=self._round.market.clock.read())

    def close(self) -> None:
        """Close its connection."""
        self._sessions.close()


def _wallet(hold: OracleHold) -> tuple[str, str]:
    return hold.earning.payee, hold.earning.currency
