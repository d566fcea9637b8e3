"""Whether filling and draining the buffer again and again costs more each time.

    uv run python -m benchmarks.cycles                       # 10 cycles of 50,000 holds, 5,000 wallets

The books begin with a history. So every cycle writes about one page per wallet into the index of the wallets'
transactions, as in books that are years old. Without it, the first cycles would write to only a few pages.
Some cycles run before the measured ones, because a queue that was never full has no index pages to use again.
Payees are drawn at random with a fixed seed, some far more often than others. If all wallets were alike, all
their pages of that index would be full, and split, in the same cycle. This still happens to a smaller extent,
so the last three cycles are compared with the first three.

A cycle holds earnings that are due at once (`add_many_pending_earnings`), releases them (`release_all_due`)
and dispatches the notifications, to no endpoint. Before each release there is a checkpoint, so that each
release writes the same full pages into the WAL, and none is charged for a checkpoint that happens during it.
Autovacuum uses the thresholds of the tables. But an hour, in which it would run sixty times, takes only
seconds here. So it runs every second, a cycle begins when it has nothing left to do, and the cycle waits for
it twice: after the first tenth of the earnings, and before the release, which is not charged for it. Other
transactions run all the time, as on a real server: an index page that vacuum has emptied can be used again
only when a later transaction has begun.

Measured are the WAL of a release and of a cycle, per hold; the size of the tables that should stay as large
as the queue, at the end of a cycle; and what a cycle adds to the tables that only grow.
"""

import argparse
import random
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Final

from sqlalchemy import Engine, text

from benchmarks.figure import Figure
from benchmarks.fill import Shape, fill
from benchmarks.server import BenchmarkServer, benchmark_server
from buffer_pipeline.database import database_clock
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.notifications.outbox import dispatch
from buffer_pipeline.release_run.run import release_all_due

CHUNK: Final = 5_000
GOAL: Final = 1.1
COMPARED: Final = 3
"""How many cycles at each end are compared."""

WORN_IN: Final = 5
"""Cycles before the measured ones."""

STANDING: Final = (
    "unsettled_hold",
    "unsettled_hold_pkey",
    "unsettled_hold_due_idx",
    "wallet",
    "wallet_pkey",
    "wallet_id_currency_key",
    "wallet_owner_currency_key",
    "notification_undispatched_idx",
)
"""Tables and indexes that should be as large after the last cycle as after the first."""

APPENDED: Final = ("hold", "transaction", "notification")

_SIZES: Final = """
SELECT relname AS name,
  CASE WHEN relname = any(:appended) THEN pg_total_relation_size(oid) ELSE pg_relation_size(oid) END AS bytes
FROM pg_class
WHERE relnamespace = CAST('buffer' AS regnamespace) AND (relname = any(:standing) OR relname = any(:appended))
"""

# The tables that autovacuum works on now, or will work on, because they have enough dead or new rows.
_VACUUM_PENDING: Final = """
SELECT count(*) FROM (
  SELECT relid FROM pg_stat_progress_vacuum WHERE datname = current_database()
  UNION ALL
  SELECT stat.relid
  FROM pg_stat_user_tables AS stat INNER JOIN pg_class ON stat.relid = pg_class.oid
  LEFT JOIN LATERAL (
    SELECT
      max(option_value) FILTER (WHERE option_name = 'autovacuum_vacuum_threshold') AS threshold,
      max(option_value) FILTER (WHERE option_name = 'autovacuum_vacuum_scale_factor') AS scale_factor,
      max(option_value) FILTER (WHERE option_name = 'autovacuum_vacuum_insert_scale_factor') AS inserts
    FROM pg_options_to_table(reloptions)
  ) AS own ON TRUE
  WHERE stat.n_dead_tup > coalesce(own.threshold, current_setting('autovacuum_vacuum_threshold'))::bigint
    + coalesce(own.scale_factor, current_setting('autovacuum_vacuum_scale_factor'))::double precision
      * greatest(reltuples, 0)
    OR stat.n_ins_since_vacuum > current_setting('autovacuum_vacuum_insert_threshold')::bigint
    + coalesce(own.inserts, current_setting('autovacuum_vacuum_insert_scale_factor'))::double precision
      * greatest(reltuples, 0)
) AS pending
"""


@dataclass
class Cycle:
    """One cycle: WAL bytes and seconds of each part, and the sizes in bytes at its end."""

    wal: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


@contextmanager
def _others_go_on(engine: Engine) -> Iterator[None]:
    """Run a hundred transactions a second that take an id, until the block ends."""
    done = threading.Event()

    def go_on() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not done.wait(0.01):
                connection.execute(text("SELECT pg_current_xact_id()"))

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def _part(engine: Engine, cycle: Cycle, name: str) -> Iterator[None]:
    with engine.connect() as connection:
        start, began = connection.scalar(text("SELECT pg_current_wal_lsn()")), time.perf_counter()
    yield
    cycle.seconds[name] = time.perf_counter() - began
    with engine.connect() as connection:
        wal = connection.scalar(
            text("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), CAST(:start AS pg_lsn))"), {"start": start}
        )
    cycle.wal[name] = float(wal)


def _hold(engine: Engine, *, first: int, holds: int, wallets: int) -> None:
    with engine.connect() as connection:
        now = database_clock(connection)
        connection.rollback()
        chance = random.Random(first)
        for start in range(first, first + holds, CHUNK):
            earnings = [
                Earning(
                    reference=f"earning-{earning}",
                    job=f"job-{earning}",
                    payee=f"worker-{int(wallets * chance.random() ** 2)}",
                    payer=f"client-{earning * 104729 % wallets}",
                    amount=f"{100 + earning % 900}.{earning % 100:02d}",
                    currency="PHP",
                    title="Fix kitchen faucet",
                    held_at=now - timedelta(days=8),
                )
                for earning in range(start, min(start + CHUNK, first + holds))
            ]
            with connection.begin():
                add_many_pending_earnings(connection, earnings, now=now)


def _release(engine: Engine, *, holds: int) -> None:
    with engine.connect() as connection:
        now = database_clock(connection)
    run = release_all_due(engine, due_by=now, source="benchmark")
    assert run.holds_released == holds, run


def _dispatch(engine: Engine) -> None:
    dispatched = 1
    while dispatched:
        with engine.begin() as connection:
            dispatched = dispatch(
                connection, [], batch_limit=CHUNK, now=database_clock(connection)
            ).notifications


def _wait_for_autovacuum(engine: Engine) -> None:
    quiet = 0
    while quiet < 3:
        # Autovacuum checks once a second, and statistics are updated up to a second after a transaction ends.
        time.sleep(1)
        with engine.connect() as connection:
            quiet = 0 if connection.scalar(text(_VACUUM_PENDING)) else quiet + 1


def _cycle(server: BenchmarkServer, engine: Engine, *, number: int, holds: int, wallets: int) -> Cycle:
    cycle = Cycle()
    with _part(engine, cycle, "whole"):
        with _part(engine, cycle, "hold"):
            _hold(engine, first=number * holds, holds=holds // 10, wallets=wallets)
            _wait_for_autovacuum(engine)
            _hold(engine, first=number * holds + holds // 10, holds=holds - holds // 10, wallets=wallets)
            _wait_for_autovacuum(engine)
        server.admin("CHECKPOINT")
        with _part(engine, cycle, "release"):
            _release(engine, holds=holds)
        with _part(engine, cycle, "dispatch"):
            _dispatch(engine)
        with _part(engine, cycle, "autovacuum"):
            _wait_for_autovacuum(engine)
    cycle.sizes = _sizes(engine)
    wal = ", ".join(f"{name} {part / holds:,.0f}" for name, part in cycle.wal.items())
    standing = ", ".join(f"{name} {cycle.sizes[name] / 2**20:.1f}" for name in STANDING)
    print(
        f"  cycle {number + 1 - WORN_IN}: released in {cycle.seconds['release']:.1f} s;"
        f" WAL bytes a hold: {wal}; MiB: {standing}",
        flush=True,
    )
    return cycle


def _sizes(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        rows = connection.execute(text(_SIZES), {"standing": list(STANDING), "appended": list(APPENDED)})
        return {row.name: row.bytes for row in rows}


def _figure(name: str, values: Sequence[float], *, holds: int) -> Figure:
    """Return the figure of a value in bytes that was measured in each cycle."""
    first, last = (statistics.mean(part) / holds for part in (values[:COMPARED], values[-COMPARED:]))
    return Figure(
        benchmark="cycles",
        name=f"{name} by hold of a cycle, last {COMPARED} of {len(values)} cycles",
        value=last,
        unit="bytes",
        yardstick=f"first {COMPARED}",
        yardstick_value=first,
        ratio=last / first,
        goal=f"within {GOAL}",
        met=last / first <= GOAL,
    )


def _figures(cycles: Sequence[Cycle], *, holds: int) -> list[Figure]:
    figures = [
        _figure(f"WAL of a {name}", [cycle.wal[part] for cycle in cycles], holds=holds)
        for name, part in (("release", "release"), ("whole cycle", "whole"))
    ]
    for name in ("unsettled_hold", "wallet", "notification_undispatched_idx"):
        parts = [part for part in STANDING if part.startswith(name)]
        sizes = [sum(cycle.sizes[part] for part in parts) for cycle in cycles]
        figures.append(_figure(f"size of {name} with its indexes", sizes, holds=holds))
    for name in APPENDED:
        sizes = [cycle.sizes[name] for cycle in cycles]
        figures.append(_figure(f"growth of {name}", [b - a for a, b in pairwise(sizes)], holds=holds))
    return figures


def measure(
    server: BenchmarkServer,
    *,
    cycles: int = 10,
    holds: int = 50_000,
    wallets: int = 5_000,
    settled: int = 1_000_000,
) -> list[Figure]:
    """Measure cycles of filling and draining the same books."""
    server.admin("ALTER SYSTEM SET autovacuum_naptime = '1s'")
    server.admin("SELECT pg_reload_conf()")
    try:
        with server.books() as database:
            fill(server, database, Shape(due=0, wallets=wallets, settled=settled))
            engine = server.engine(database)
            with _others_go_on(engine):
                done = [
                    _cycle(server, engine, number=number, holds=holds, wallets=wallets)
                    for number in range(WORN_IN + cycles)
                ][WORN_IN:]
            engine.dispose()
    finally:
        server.admin("ALTER SYSTEM RESET autovacuum_naptime")
        server.admin("SELECT pg_reload_conf()")
    return _figures(done, holds=holds)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cycles", type=int, default=10)
    parser.add_argument("--holds", type=int, default=50_000)
    parser.add_argument("--wallets", type=int, default=5_000)
    parser.add_argument("--settled", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with benchmark_server() as server:
        for figure in measure(
            server,
            cycles=arguments.cycles,
            holds=arguments.holds,
            wallets=arguments.wallets,
            settled=arguments.settled,
        ):
            print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
