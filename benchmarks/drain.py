"""How fast a backlog is released, compared with the least work that PostgreSQL must do for the same rows.

The *floor* writes the same final rows by plain statements, in one transaction and without batches, with the
same indexes, constraints and triggers. It takes no locks for others and checks nothing itself. Each contender
drains a copy of the same books. The rows that they leave are compared, except for ids and times.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Final

from sqlalchemy import Engine, text

from benchmarks.figure import Figure
from benchmarks.fill import Shape, fill
from benchmarks.server import BenchmarkServer
from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.audit.seals import seal
from buffer_pipeline.database import database_clock
from buffer_pipeline.release_run.run import release_all_due

HOLDS: Final = 1_000_000
WALLETS: Final = 100_000
ROWS_IN_THE_LOOP: Final = 5_000
TURNS: Final = 5

FLOOR: Final = (
    """
    CREATE TEMPORARY TABLE moved ON COMMIT DROP AS
    SELECT hold_id, payee_wallet_id AS wallet_id, currency, amount_minor, release_date, release_hour
    FROM buffer.unsettled_hold WHERE state = 'BUFFERED' AND release_date <= now()
    """,
    "ANALYZE moved",
    "DELETE FROM buffer.unsettled_hold WHERE state = 'BUFFERED' AND release_date <= now()",
    "INSERT INTO buffer.batch (kind, source, due_by, recorded_at) VALUES ('DUE', 'floor', now(), now())",
    """
    INSERT INTO buffer.transaction (
      type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor,
      balance_after_minor, hold_id, batch_id, recorded_at, release_date
    )
    SELECT
      'EARNING', 'PENDING_EARNINGS', moved.wallet_id, 'BALANCE', moved.wallet_id, moved.currency,
      moved.amount_minor, wallet.balance_minor + sum(moved.amount_minor) OVER (
        PARTITION BY moved.wallet_id ORDER BY moved.release_hour, moved.hold_id ROWS UNBOUNDED PRECEDING
      ),
      moved.hold_id, (SELECT max(batch_id) FROM buffer.batch), now(), moved.release_date
    FROM moved INNER JOIN buffer.wallet ON wallet.wallet_id = moved.wallet_id
    ORDER BY moved.hold_id
    """,
    """
    INSERT INTO buffer.notification (type, owner, hold_id, currency, amount_minor, created_at)
    SELECT 'PAYMENT_RELEASED', wallet.owner, moved.hold_id, moved.currency, moved.amount_minor, now()
    FROM moved INNER JOIN buffer.wallet ON wallet.wallet_id = moved.wallet_id
    """,
    """
    UPDATE buffer.wallet SET
      balance_minor = wallet.balance_minor + total.amount_minor,
      pending_earnings_minor = wallet.pending_earnings_minor - total.amount_minor
    FROM (
      SELECT wallet_id, CAST(sum(amount_minor) AS bigint) AS amount_minor FROM moved GROUP BY wallet_id
    ) AS total
    WHERE total.wallet_id = wallet.wallet_id
    """,
)

# A release of one hold as a program would do it that handles row after row.
LOOP: Final = (
    "SELECT hold_id FROM buffer.unsettled_hold WHERE hold_id = :hold_id AND state = 'BUFFERED' FOR UPDATE",
    """
    SELECT wallet_id FROM buffer.wallet WHERE wallet_id = (
      SELECT payee_wallet_id FROM buffer.unsettled_hold WHERE hold_id = :hold_id
    ) FOR UPDATE
    """,
    """
    UPDATE buffer.wallet SET
      balance_minor = balance_minor + amount_minor,
      pending_earnings_minor = pending_earnings_minor - amount_minor
    FROM buffer.unsettled_hold WHERE hold_id = :hold_id AND wallet_id = payee_wallet_id
    """,
    """
    INSERT INTO buffer.batch (kind, source, due_by, recorded_at) VALUES ('DUE', 'loop', now(), now())
    """,
    """
    INSERT INTO buffer.transaction (
      type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor,
      balance_after_minor, hold_id, batch_id, recorded_at, release_date
    )
    SELECT
      'EARNING', 'PENDING_EARNINGS', wallet_id, 'BALANCE', wallet_id, unsettled_hold.currency, amount_minor,
      balance_minor, hold_id, (SELECT max(batch_id) FROM buffer.batch), now(), release_date
    FROM buffer.unsettled_hold INNER JOIN buffer.wallet ON wallet_id = payee_wallet_id
    WHERE hold_id = :hold_id
    """,
    """
    INSERT INTO buffer.notification (type, owner, hold_id, currency, amount_minor, created_at)
    SELECT 'PAYMENT_RELEASED', owner, hold_id, unsettled_hold.currency, amount_minor, now()
    FROM buffer.unsettled_hold INNER JOIN buffer.wallet ON wallet_id = payee_wallet_id
    WHERE hold_id = :hold_id
    """,
    "DELETE FROM buffer.unsettled_hold WHERE hold_id = :hold_id",
)

# The result of a release, without ids, times and batches.
OUTCOME: Final = """
SELECT
  (SELECT count(*) FROM buffer.unsettled_hold) AS unsettled,
  (
    SELECT md5(string_agg(
      concat_ws(',', wallet_id, balance_minor, pending_earnings_minor), ';' ORDER BY wallet_id
    )) FROM buffer.wallet
  ) AS wallets,
  (
    SELECT md5(string_agg(
      concat_ws(
        ',', hold_id, type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor,
        balance_after_minor, release_date
      ), ';' ORDER BY hold_id, type
    )) FROM buffer.transaction
  ) AS transactions,
  (
    SELECT md5(string_agg(
      concat_ws(',', hold_id, type, owner, currency, amount_minor), ';' ORDER BY hold_id, type
    )) FROM buffer.notification
  ) AS notifications
"""


def measure(server: BenchmarkServer, *, holds: int = HOLDS, wallets: int = WALLETS) -> list[Figure]:
    """Drain the same books by the floor, by one worker and by two, and by a loop row by row."""
    figures: list[Figure] = []
    with server.books() as uniform, server.books() as single, server.books() as hours:
        fill(server, uniform, Shape(due=holds, wallets=wallets))
        fill(server, single, Shape(due=holds, wallets=1))
        fill(server, hours, Shape(due=holds, wallets=wallets, hours=72))
        # Each copy is made right before its contender runs, and the contenders take turns, so that all run
        # under the same conditions. The median counts.
        taken: dict[Contender, list[float]] = {_floor: [], release: [], _release_by_two: []}
        outcomes = set()
        for _ in range(TURNS):
            for contender, rates in taken.items():
                rate, outcome = rate_of(server, uniform, contender)
                rates.append(rate)
                outcomes.add(outcome)
        assert len(outcomes) == 1
        floor_rate, one, two = (median(rates) for rates in taken.values())
        hours_floor, hours_floor_outcome = rate_of(server, hours, _floor)
        hours_one, hours_one_outcome = rate_of(server, hours, release)
        assert hours_floor_outcome == hours_one_outcome
        of_one_wallet, _ = rate_of(server, single, release)
        loop, _ = rate_of(server, uniform, _loop)
        released_seconds, sealed_seconds, intake_seconds = min(_sealed(server, uniform) for _ in range(2))
    for name, rate, yardstick, against, goal in (
        (f"{holds:,} holds, {wallets:,} wallets, one worker", one, "floor", floor_rate, 0.9),
        ("the same, --workers 2", two, "floor", floor_rate, 1.3),
        ("the same, due over 72 hours, one worker", hours_one, "its floor", hours_floor, None),
        ("one wallet has them all", of_one_wallet, "uniform", one, 0.8),
        (f"against a row at a time ({ROWS_IN_THE_LOOP:,})", one, "row at a time", loop, 100),
    ):
        figures.append(
            Figure(
                benchmark="drain",
                name=name,
                value=rate,
                unit="holds/s",
                yardstick=yardstick,
                yardstick_value=against,
                ratio=rate / against,
                goal="no goal" if goal is None else f"at least {goal} times",
                met=None if goal is None else rate / against >= goal,
            )
        )
    for name, seconds, under in (
        (f"sealing what it wrote, {holds:,} transactions", sealed_seconds, 0.05),
        ("and what intake had written of the same holds, as many", intake_seconds, None),
    ):
        figures.append(
            Figure(
                benchmark="drain",
                name=name,
                value=seconds,
                unit="s",
                yardstick="the release",
                yardstick_value=released_seconds,
                ratio=seconds / released_seconds,
                goal="no goal" if under is None else f"under {under} of it",
                met=None if under is None else seconds / released_seconds < under,
            )
        )
    return figures


def history(
    server: BenchmarkServer, *, due: int = 10_000, settled: tuple[int, ...] = (100_000, 1_000_000, 10_000_000)
) -> list[Figure]:
    """Drain a few holds in books with histories of several lengths; the median of TURNS turns of each.

    Ten due holds per wallet, as in `measure`; and one per wallet, where each credit goes to another page of
    the index of the wallets' transactions. Each run comes after a checkpoint, as an hourly release usually
    does, so each page that it changes is written whole into the WAL.
    """
    each_of = (10, 1)
    seconds: dict[tuple[int, int], float] = {}
    for size in settled:
        for each in each_of:
            with server.books() as books:
                fill(server, books, Shape(due=due, wallets=WALLETS, due_wallets=due // each, settled=size))
                taken = []
                for _ in range(TURNS):
                    with _copy(server, books) as engine:
                        taken.append(_timed(release, engine)[0])
                seconds[size, each] = median(taken)
    return [
        Figure(
            benchmark="history",
            name=f"{due:,} due, {each} a wallet, among {size:,} settled",
            value=seconds[size, each],
            unit="s",
            yardstick=f"among {settled[0]:,}",
            yardstick_value=seconds[settled[0], each],
            ratio=seconds[size, each] / seconds[settled[0], each],
            goal="at most 1.2 times",
            met=seconds[size, each] / seconds[settled[0], each] <= 1.2,
        )
        for each in each_of
        for size in settled[1:]
    ]


def memory(server: BenchmarkServer, *, holds: tuple[int, int] = (10_000, HOLDS)) -> list[Figure]:
    """Return the peak memory of `buffer-pipeline release` for a small and a large backlog."""
    peaks = []
    for number in holds:
        with server.books() as books:
            fill(server, books, Shape(due=number, wallets=10_000))
            peaks.append(_peak_of_a_release(server.url(books)))
    return [
        Figure(
            benchmark="memory",
            name=f"of `buffer-pipeline release`, {holds[1]:,} holds",
            value=peaks[1],
            unit="MB",
            yardstick=f"{holds[0]:,} holds",
            yardstick_value=peaks[0],
            ratio=peaks[1] / peaks[0],
            goal="no goal",
            met=None,
        )
    ]


# The process reads its own peak. The one from `wait4` includes the memory of the parent before the exec.
_RELEASE: Final = """
import atexit, sys
from pathlib import Path
from buffer_pipeline.cli.app import main

def say():
    lines = Path("/proc/self/status").read_text().splitlines()
    sys.stderr.write("\\n" + next(line for line in lines if line.startswith("VmHWM")) + "\\n")

atexit.register(say)
main()
"""


def _peak_of_a_release(url: str) -> float:
    """Run the command and return its largest resident set, in MB."""
    ran = subprocess.run(
        [sys.executable, "-c", _RELEASE, "release", "--json"],
        env={**os.environ, "BUFFER_DATABASE_URL": url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(ran.stderr.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


@contextmanager
def _copy(server: BenchmarkServer, books: str) -> Iterator[Engine]:
    with server.books(copy_of=books) as name:
        server.admin("CHECKPOINT")
        engine = server.engine(name)
        try:
            yield engine
        finally:
            engine.dispose()


Contender = Callable[[Engine], int]


def rate_of(server: BenchmarkServer, books: str, contender: Contender) -> tuple[float, tuple[object, ...]]:
    """Return the holds per second of a contender on a copy of the books, and the resulting rows."""
    with _copy(server, books) as engine:
        seconds, settled = _timed(contender, engine)
        with engine.connect() as connection:
            assert reconcile(connection) == []
            outcome = tuple(connection.execute(text(OUTCOME)).one())
    return settled / seconds, outcome


def _timed(contender: Contender, engine: Engine) -> tuple[float, int]:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    began = time.perf_counter()
    settled = contender(engine)
    return time.perf_counter() - began, settled


def _floor(engine: Engine) -> int:
    """Write the final rows by plain statements."""
    with engine.begin() as connection:
        for statement in FLOOR:
            connection.execute(text(statement))
        settled: int = connection.scalar(text("SELECT count(*) FROM moved"))
    return settled


def release(engine: Engine, *, workers: int = 1) -> int:
    """Drain as `buffer-pipeline release` does."""
    with engine.connect() as connection:
        due_by = database_clock(connection)
    return release_all_due(engine, due_by=due_by, source="benchmark", workers=workers).holds_released


def _sealed(server: BenchmarkServer, books: str) -> tuple[float, float, float]:
    """Return the seconds of a release, of sealing its transactions, and of sealing those of intake."""
    with _copy(server, books) as engine:
        intake_seconds, held = _timed(lambda books: seal(books).lines, engine)
        released_seconds, released = _timed(release, engine)
        sealed_seconds, sealed = _timed(lambda books: seal(books).lines, engine)
        assert held == sealed == released
    return released_seconds, sealed_seconds, intake_seconds


def _release_by_two(engine: Engine) -> int:
    return release(engine, workers=2)


def _loop(engine: Engine) -> int:
    """Release hold by hold, as a loop over an ORM's objects does, with a transaction for each."""
    with engine.connect() as connection:
        ids = list(
            connection.scalars(
                text("SELECT hold_id FROM buffer.unsettled_hold ORDER BY release_hour LIMIT :rows"),
                {"rows": ROWS_IN_THE_LOOP},
            )
        )
        connection.rollback()
        for hold_id in ids:
            with connection.begin():
                for statement in LOOP:
                    connection.execute(text(statement), {"hold_id": hold_id})
    return len(ids)
