"""How long each read takes among many holds, compared with a read of one row by its primary key.

    uv run python -m benchmarks.reads                        # 1,000,000 holds over 5,000 payees

The calls take turns on one connection in one run, after some that are not counted. Each asks for another
owner, job or hold. A deep page is the one after 100 others. Every hundredth hold had a backjob, a debt and a
payout. Nothing else runs.
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, text

from benchmarks.figure import Figure
from benchmarks.fill import CLIENTS, Shape, fill
from benchmarks.server import BenchmarkServer, benchmark_server
from buffer_pipeline.explain import explain_hold
from buffer_pipeline.reads import (
    Page,
    find_hold,
    find_wallet,
    list_backjobs,
    list_debts,
    list_holds,
    list_payouts,
    list_wallets,
    statement,
)

ROUNDS: Final = 1_000
WARM_UP: Final = 50
DEEP_PAGES: Final = 100
TIMES_MAX: Final = 3
TIMES_MAX_TO_EXPLAIN: Final = 4

_BY_KEY: Final = "SELECT * FROM buffer.hold WHERE hold_id = :hold_id"

_OTHERS: Final = """
INSERT INTO buffer.backjob (
  job, state, requested_by, reason, requested_at, decided_by, decision_reason, decided_at
)
SELECT job, 'REJECTED', 'client-1', 'drips again', held_at, 'admin-1', 'done well', held_at
FROM buffer.hold WHERE hold_id % 100 = 0 ORDER BY hold_id;
INSERT INTO buffer.hold_freeze (
  hold_id, kind, backjob_id, opened_by, reason, opened_at, closed_by, closing_reason, closed_at
)
SELECT
  hold_id, 'BACKJOB', backjob_id, requested_by, reason, requested_at, decided_by, decision_reason, decided_at
FROM buffer.backjob INNER JOIN buffer.hold USING (job) ORDER BY hold_id;
INSERT INTO buffer.batch (kind, source, reason, recorded_at, reference, named_hold_id, paid_to)
SELECT 'CLAWBACK', 'admin-1', 'chargeback', held_at, 'back-' || hold_id, hold_id, 'BANK'
FROM buffer.hold WHERE hold_id % 100 = 0 ORDER BY hold_id;
INSERT INTO buffer.debt (
  clawback_id, hold_id, wallet_id, currency, amount_minor, outstanding_minor, opened_at, closed_at
)
SELECT batch_id, hold_id, payee_wallet_id, hold.currency, 100, 0, held_at, held_at
FROM buffer.batch INNER JOIN buffer.hold ON hold_id = named_hold_id ORDER BY hold_id;
INSERT INTO buffer.payout (
  wallet_id, currency, amount_minor, whole_balance, state, reference, requested_by, requested_at,
  cancelled_by, cancellation_reason, cancelled_at
)
SELECT
  payee_wallet_id, currency, 100, FALSE, 'CANCELLED', 'payout-' || hold_id, 'shop', held_at,
  'shop', 'not now', held_at
FROM buffer.hold WHERE hold_id % 100 = 0 ORDER BY hold_id
"""

Call = Callable[[Connection], object]


def _calls(chance: random.Random, *, holds: int, wallets: int) -> dict[str, Call]:
    def a_hold() -> int:
        return chance.randint(1, holds)

    def a_payee() -> str:
        return f"worker-{chance.randrange(wallets)}"

    def a_payer() -> str:
        return f"client-{chance.randrange(CLIENTS)}"

    return {
        "find_hold": lambda books: find_hold(books, hold_id=a_hold()),
        "find_wallet": lambda books: find_wallet(books, owner=a_payee(), currency="PHP"),
        "list_holds": list_holds,
        "list_holds of a payee": lambda books: list_holds(books, owner=a_payee()),
        "list_holds of what waits for a payee": lambda books: list_holds(
            books, owner=a_payee(), state="BUFFERED"
        ),
        "list_holds of a payer": lambda books: list_holds(books, owner=a_payer(), role="PAYER"),
        "list_holds of a job": lambda books: list_holds(books, job=f"job-{chance.randrange(holds)}"),
        "list_holds that are BUFFERED": lambda books: list_holds(books, state="BUFFERED"),
        "statement": lambda books: statement(books, owner=a_payee()),
        "list_wallets": list_wallets,
        "list_backjobs": list_backjobs,
        "list_debts": list_debts,
        "list_payouts": list_payouts,
        "explain_hold": lambda books: explain_hold(books, hold_id=a_hold()),
    }


def _fill_others(server: BenchmarkServer, database: str) -> None:
    """Add backjobs, debts and payouts that are over, by plain statements of the superuser."""
    engine = server.engine(database, user="postgres")
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement_of_others in _OTHERS.split(";\n"):
            connection.execute(text(statement_of_others))
    engine.dispose()
    server.admin("VACUUM (ANALYZE)", database=database)


def _deep(first: Callable[[str | None], Page[Any]]) -> Call:
    """Return a call of the page after DEEP_PAGES others."""
    cursor = None
    for _ in range(DEEP_PAGES):
        cursor = first(cursor).next_cursor
        assert cursor is not None
    return lambda _: first(cursor)


def quantile(seconds: Sequence[float], share: float) -> float:
    """Return the quantile in milliseconds; 0.99 is p99."""
    found = sorted(seconds)
    return found[min(int(len(found) * share), len(found) - 1)] * 1000


def measure(
    server: BenchmarkServer, *, holds: int = 1_000_000, wallets: int = 5_000, seed: int = 1
) -> list[Figure]:
    """Measure first pages and deep pages in turns with reads by the primary key."""
    chance = random.Random(seed)
    waiting = holds // 10
    taken: dict[str, list[float]] = {}
    with server.books() as database:
        fill(
            server,
            database,
            Shape(due=holds // 100, waiting=waiting, settled=holds - waiting - holds // 100, wallets=wallets),
        )
        _fill_others(server, database)
        engine = server.engine(database)
        with engine.connect() as connection:
            by_key = text(_BY_KEY)

            def key_read(books: Connection) -> object:
                return books.execute(by_key, {"hold_id": chance.randint(1, holds)}).mappings().all()

            deep = {
                "list_holds, deep": _deep(lambda cursor: list_holds(connection, cursor=cursor)),
                "list_holds that are BUFFERED, deep": _deep(
                    lambda cursor: list_holds(connection, state="BUFFERED", cursor=cursor)
                ),
            }
            calls = {"": key_read, **_calls(chance, holds=holds, wallets=wallets), **deep}
            for number in range(WARM_UP + ROUNDS):
                for name, call in calls.items():
                    began = time.perf_counter()
                    call(connection)
                    if number >= WARM_UP:
                        taken.setdefault(name, []).append(time.perf_counter() - began)
        engine.dispose()
    return [
        _figure(name, share, quantile(seconds, share), quantile(taken[""], share), holds=holds)
        for name, seconds in taken.items()
        if name
        for share in (0.5, 0.99)
    ]


def _figure(name: str, share: float, value: float, key_value: float, *, holds: int) -> Figure:
    ratio = value / key_value
    is_goal = share == 0.99 and "deep" not in name
    times_max = TIMES_MAX_TO_EXPLAIN if name == "explain_hold" else TIMES_MAX
    return Figure(
        benchmark="reads",
        name=f"{name} among {holds:,}, p{share * 100:.0f}",
        value=value,
        unit="ms",
        yardstick="one row by its primary key",
        yardstick_value=key_value,
        ratio=ratio,
        goal=f"p99 of a first page at most {times_max} times",
        met=ratio <= times_max if is_goal else None,
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--holds", type=int, default=1_000_000)
    parser.add_argument("--wallets", type=int, default=5_000)
    arguments = parser.parse_args()
    with benchmark_server() as server:
        for figure in measure(server, holds=arguments.holds, wallets=arguments.wallets):
            print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
