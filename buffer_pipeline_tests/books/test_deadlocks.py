"""A READ COMMITTED transaction with a single verb never ends in a deadlock.

Foreign keys leave KEY SHARE locks on older versions of a wallet's row. A statement that locks a wallet and
then
updates it through such a version would request the lock twice: the second time it would queue behind a
transaction that waits for it.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import approve_backjob, request_backjob
from buffer_pipeline.errors import Refused
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.owner_freeze import freeze_owner, unfreeze_owner
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    NOON,
    WAIT_SECONDS_MAX,
    place_hold,
    waiting_for_a_lock,
)

SECONDS: Final = float(os.environ.get("DEADLOCK_SECONDS", "10"))
"""How long the threads of the last test run."""
THREADS: Final = 8
OWNERS: Final = 6
REFERENCES: Final = count(1)


def earnings(*, payees: int = OWNERS) -> list[Earning]:
    """Return an earning with a new reference for each of `number` workers."""
    return [
        Earning(
            reference=f"many-{next(REFERENCES)}",
            job=f"job-{number}",
            payee=f"worker-{number}",
            payer="client-3",
            amount="10.00",
            currency="PHP",
            shares=shares(number),
        )
        for number in random.sample(range(payees), payees)
    ]


def shares(number: int) -> tuple[Share, ...]:
    """Return no shares for an odd number. Otherwise return a fee for each of the other workers, in varying
    order.
    """
    others = [f"worker-{other}" for other in range(OWNERS) if other != number]
    if number % 2:
        return ()
    fees = [
        Share(kind=ShareKind.FEE, owner=other, percent=10) for other in random.sample(others, len(others))
    ]
    return (*fees, Share(kind=ShareKind.PAYEE))


@contextmanager
def key_share_on_an_older_version(engine: Engine) -> Iterator[None]:
    """Hold a foreign key's lock on each worker's wallet, and update the wallets after it was taken."""
    with engine.connect() as locker:
        locker.execute(text("SELECT FROM buffer.wallet WHERE owner LIKE 'worker-%' FOR KEY SHARE"))
        with engine.begin() as connection:
            add_many_pending_earnings(connection, earnings(), now=NOON)
        yield
        locker.rollback()


def _refund(connection: Connection, number: int) -> object:
    return approve_backjob(connection, backjob_id=number, by=ADMIN, reason="agreed", now=NOON)


def _release_team_early(connection: Connection, number: int) -> object:
    return release_early(connection, job=f"team-{number}", by=ADMIN, as_admin=True, reason="agreed", now=NOON)


VERBS: Final[dict[str, Callable[[Connection, int], object]]] = {
    "add many": lambda connection, _number: add_many_pending_earnings(connection, earnings(), now=NOON),
    "refund a backjob": _refund,
    "release early": _release_team_early,
}


@pytest.mark.parametrize("name", VERBS)
def test_two_verbs_that_wait_for_an_updated_wallet_both_finish(engine: Engine, name: str) -> None:
    """Two verbs on the wallets of one team wait for the first wallet; then both get all wallets."""
    with engine.begin() as connection:
        for team in (1, 2):
            for worker in range(OWNERS):
                place_hold(connection, job=f"team-{team}", payee=f"worker-{worker}")
            if name == "refund a backjob":
                request_backjob(connection, job=f"team-{team}", by="client-3", reason="it leaks", now=NOON)
    verb = VERBS[name]

    def run(number: int) -> object:
        with engine.begin() as connection:
            return verb(connection, number)

    with (
        key_share_on_an_older_version(engine),
        ThreadPoolExecutor(2) as threads,
        engine.connect() as blocker,
        engine.connect() as watcher,
    ):
        # An update, as by a deposit, puts another version of the row into the queue.
        blocker.execute(
            text(
                "UPDATE buffer.wallet SET balance_minor = balance_minor WHERE wallet_id ="
                " (SELECT min(wallet_id) FROM buffer.wallet WHERE owner LIKE 'worker-%')"
            )
        )
        running = []
        for number in (1, 2):
            running.append(threads.submit(run, number))
            deadline = time.monotonic() + WAIT_SECONDS_MAX
            while waiting_for_a_lock(watcher) < number:
                assert time.monotonic() < deadline, "it does not come to the locked wallet"
        blocker.commit()
        outcomes = [future.result(timeout=WAIT_SECONDS_MAX) for future in running]

    assert len(outcomes) == 2
    with engine.connect() as connection:
        assert reconcile(connection) == []


def _any_verb(connection: Connection, chance: random.Random) -> None:
    number, reference = chance.randrange(OWNERS), f"one-{next(REFERENCES)}"
    job, worker = f"job-{number}", f"worker-{number}"
    money: dict[str, Any] = {"amount": "1.00", "currency": "PHP", "reference": reference, "now": NOON}
    decision: dict[str, Any] = {"by": ADMIN, "reason": "agreed", "now": NOON}
    name = chance.choice(
        [
            *["many", "many", "one", "deposit", "withdraw", "early", "backjob", "approve", "release"],
            *["freeze owner", "unfreeze owner", "unfreeze owner"],
        ]
    )
    if name == "many":
        add_many_pending_earnings(connection, earnings(), now=NOON)
    elif name == "one":
        add_pending_earnings(
            connection, job=job, payee=worker, payer="client-3", shares=shares(number), **money
        )
    elif name == "deposit":
        deposit(connection, owner=worker, **money)
    elif name == "withdraw":
        withdraw(connection, owner=worker, **money)
    elif name == "early":
        release_early(connection, job=job, as_admin=True, **decision)
    elif name == "backjob":
        request_backjob(connection, job=job, **decision)
    elif name == "freeze owner":
        freeze_owner(connection, owner=worker, kind=FreezeKind.ADMIN, **decision)
    elif name == "unfreeze owner":
        unfreeze_owner(connection, owner=worker, **decision)
    elif name == "approve":
        open_ones = connection.scalars(
            text("SELECT backjob_id FROM buffer.backjob WHERE state = 'OPEN'")
        ).all()
        if open_ones:
            approve_backjob(connection, backjob_id=chance.choice(open_ones), **decision)
    else:
        release_matured(connection, now=DAY_7, batch_limit=20)


def test_eight_threads_of_single_verbs_end_without_a_deadlock(engine: Engine) -> None:
    """Verbs of all kinds on the wallets of six workers, one verb per transaction, while other sessions keep
    taking
    foreign keys' locks. PostgreSQL cancels none of them. For a minute:
    `DEADLOCK_SECONDS=60 uv run pytest buffer_pipeline_tests/books/test_deadlocks.py`
    """
    with engine.begin() as connection:
        add_many_pending_earnings(connection, earnings(), now=NOON)
    until = time.monotonic() + SECONDS
    ended: list[str | None] = []

    def run(seed: int) -> int:
        chance, verbs = random.Random(seed), 0
        with engine.connect() as connection:
            while time.monotonic() < until and not ended:
                try:
                    with connection.begin():
                        _any_verb(connection, chance)
                    verbs += 1
                except Refused:
                    pass
                except DBAPIError as error:
                    ended.append(getattr(error.orig, "sqlstate", None))
                    raise
        return verbs

    def lock_keys(seed: int) -> None:
        chance = random.Random(seed)
        with engine.connect() as connection:
            while time.monotonic() < until and not ended:
                with connection.begin():
                    worker = {"owner": f"worker-{chance.randrange(OWNERS)}"}
                    connection.execute(
                        text("SELECT FROM buffer.wallet WHERE owner = :owner FOR KEY SHARE"), worker
                    )
                    connection.execute(text("SELECT pg_sleep(0.01)"))

    with ThreadPoolExecutor(THREADS + 2) as threads:
        lockers = [threads.submit(lock_keys, seed) for seed in (100, 101)]
        done = [future.result() for future in [threads.submit(run, seed) for seed in range(THREADS)]]
        for locker in lockers:
            locker.result()

    assert all(done)
    with engine.connect() as connection:
        assert reconcile(connection) == []
