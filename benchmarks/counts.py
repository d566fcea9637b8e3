"""How long it takes to count 720 hours, and how much memory.

    uv run python -m benchmarks.counts                # 10,000,000 transactions

The yardstick is one statement with a GROUP BY that computes the same figures from the same transactions. It
and `count_hours` take turns, and their medians are compared. `count_hours` also waits for open transactions
and stores what it counted. The yardstick of a second figure is a GROUP BY of counts and sums only, without
the number of payees and the median lateness; the server can run that one in parallel. Memory is the peak of a
fresh process that only counts.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from statistics import median
from typing import Final

from sqlalchemy import Engine, text

from benchmarks.figure import Figure
from benchmarks.fill import Shape, fill
from benchmarks.server import BenchmarkServer, benchmark_server
from buffer_pipeline.hours import HOUR
from buffer_pipeline.reports.complete_hours import first_hour
from buffer_pipeline.reports.hourly_counts import count_hours

HOURS: Final = 720
BUFFER_HOURS: Final = 7 * 24
REPETITIONS: Final = 3
MEMORY_MB_MAX: Final = 500

# Half of the transactions add holds, spread over this many hours. The other half releases them a week later.
_SETTLED_HOURS: Final = HOURS - BUFFER_HOURS - 1

_SUMS: Final = """
SELECT
  date_bin('1 hour', transaction.recorded_at, timestamptz '2000-01-01 00:00:00+00') AS hour,
  transaction.currency,
  count(*) FILTER (WHERE type = 'PENDING_EARNING') AS holds_added,
  sum(amount_minor) FILTER (WHERE type = 'PENDING_EARNING') AS added_minor,
  count(*) FILTER (WHERE type = 'EARNING') AS holds_released,
  sum(amount_minor) FILTER (WHERE type = 'EARNING') AS released_minor,
  count(*) FILTER (WHERE type = 'REFUND') AS refunds,
  sum(amount_minor) FILTER (WHERE type = 'REFUND') AS refunded_minor
FROM buffer.transaction
WHERE transaction.recorded_at >= :since AND transaction.recorded_at < :until
GROUP BY 1, 2
"""

# The counts of freezes are left out: freezes are in another table, which is empty here.
_ALL_FIGURES: Final = """
SELECT
  date_bin('1 hour', transaction.recorded_at, timestamptz '2000-01-01 00:00:00+00') AS hour,
  transaction.currency,
  count(*) FILTER (WHERE type = 'PENDING_EARNING') AS holds_added,
  sum(amount_minor) FILTER (WHERE type = 'PENDING_EARNING') AS added_minor,
  count(*) FILTER (WHERE type = 'EARNING') AS holds_released,
  count(*) FILTER (WHERE batch.kind = 'EARLY') AS holds_released_early,
  sum(amount_minor) FILTER (WHERE type = 'EARNING') AS released_minor,
  count(DISTINCT to_wallet_id) FILTER (WHERE type = 'EARNING') AS payees,
  percentile_cont(0.5) WITHIN GROUP (
    ORDER BY CAST(extract(EPOCH FROM transaction.recorded_at - release_date) AS double precision)
  ) FILTER (WHERE batch.kind = 'DUE') AS lateness_median_seconds,
  max(transaction.recorded_at - release_date) FILTER (WHERE batch.kind = 'DUE') AS lateness_max,
  count(*) FILTER (WHERE type = 'REFUND') AS refunds,
  sum(amount_minor) FILTER (WHERE type = 'REFUND') AS refunded_minor
FROM buffer.transaction LEFT JOIN buffer.batch ON transaction.batch_id = batch.batch_id
WHERE transaction.recorded_at >= :since AND transaction.recorded_at < :until
GROUP BY 1, 2
"""

_CHILD: Final = """
import resource, sys
from datetime import datetime
from buffer_pipeline.reports.hourly_counts import count_hours
from buffer_pipeline.database import make_engine
url, start, end = sys.argv[1:]
count_hours(make_engine(url), start=datetime.fromisoformat(start), end=datetime.fromisoformat(end),
            counted_by="benchmark")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def measure(server: BenchmarkServer, *, transactions: int = 10_000_000) -> list[Figure]:
    """Return the figures of `transactions` in 720 hours."""
    shape = Shape(due=0, wallets=100_000, settled=transactions // 2, settled_hours=_SETTLED_HOURS)
    with server.books() as books:
        fill(server, books, shape)
        engine = server.engine(books)
        with engine.connect() as connection:
            start = first_hour(connection)
            found = connection.scalar(text("SELECT max(recorded_at) FROM buffer.transaction"))
        assert start is not None
        assert start <= found < start + HOURS * HOUR
        end = start + HOURS * HOUR
        counted, plain, sums = _take_turns(
            lambda: _count(engine, start=start, end=end),
            lambda: _group_by(engine, _ALL_FIGURES, start=start, end=end),
            lambda: _group_by(engine, _SUMS, start=start, end=end),
        )
        hour = start + HOURS // 2 * HOUR
        one_hour, one_plain = _take_turns(
            lambda: _count(engine, start=hour, end=hour + HOUR),
            lambda: _group_by(engine, _ALL_FIGURES, start=hour, end=hour + HOUR),
        )
        memory_mb = _memory_mb(server.url(books), start=start, end=end)
        engine.dispose()
    name = f"{HOURS} hours of {transactions:,} transactions"
    return [
        _compared(name, counted, "GROUP BY of the same figures", plain, ratio_max=1.5),
        _compared(name, counted, "GROUP BY of counts and sums only", sums, ratio_max=None),
        _compared(
            f"one hour of {transactions:,} transactions", one_hour, "GROUP BY", one_plain, ratio_max=None
        ),
        Figure(
            benchmark="counts",
            name=f"peak memory, {name}",
            value=memory_mb,
            unit="MB",
            yardstick="",
            yardstick_value=None,
            ratio=None,
            goal=f"under {MEMORY_MB_MAX} MB",
            met=memory_mb < MEMORY_MB_MAX,
        ),
    ]


def _compared(
    name: str, seconds: float, yardstick: str, yardstick_seconds: float, *, ratio_max: float | None
) -> Figure:
    ratio = seconds / yardstick_seconds
    return Figure(
        benchmark="counts",
        name=name,
        value=seconds,
        unit="s",
        yardstick=yardstick,
        yardstick_value=yardstick_seconds,
        ratio=ratio,
        goal="no goal" if ratio_max is None else f"within {ratio_max}",
        met=None if ratio_max is None else ratio <= ratio_max,
    )


def _take_turns(*contenders: Callable[[], object]) -> list[float]:
    """Return the median seconds of each contender over REPETITIONS rounds; in a round each runs once."""
    seconds: list[list[float]] = [[] for _ in contenders]
    for _ in range(REPETITIONS):
        for contender, taken in zip(contenders, seconds, strict=True):
            began = time.perf_counter()
            contender()
            taken.append(time.perf_counter() - began)
    return [median(taken) for taken in seconds]


def _count(engine: Engine, *, start: datetime, end: datetime) -> None:
    count_hours(engine, start=start, end=end, counted_by="benchmark")


def _group_by(engine: Engine, statement: str, *, start: datetime, end: datetime) -> None:
    with engine.connect() as connection:
        assert connection.execute(text(statement), {"since": start, "until": end}).all()


def _memory_mb(url: str, *, start: datetime, end: datetime) -> float:
    child = [sys.executable, "-c", _CHILD, url, start.isoformat(), end.isoformat()]
    return int(subprocess.run(child, check=True, capture_output=True, text=True).stdout) / 1024


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--transactions", type=int, default=10_000_000)
    arguments = parser.parse_args()
    with benchmark_server() as server:
        for figure in measure(server, transactions=arguments.transactions):
            print(figure.line())


if __name__ == "__main__":
    main()
