"""How long a backjob request takes while everything that is due is being released.

    uv run python -m benchmarks.latency                      # 400,000 due holds over 5,000 wallets

Several clients, each with a connection, request backjobs. Each request is a transaction, and between two
requests a client pauses for a random time. Half of the requests are on jobs whose holds are not due yet; the
release credits their payees' wallets meanwhile. The other half is on jobs whose holds are due and near the
current batch. These requests are refused, but first they wait for the batch that has locked their holds. At
first nothing else runs, then `buffer-pipeline release` runs as a process of its own. A batch's duration is
the time from its recorded beginning to that of the next batch.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, text

from benchmarks.figure import Figure
from benchmarks.fill import Shape, fill
from benchmarks.server import BenchmarkServer, benchmark_server
from buffer_pipeline.backjob import request_backjob
from buffer_pipeline.database import database_clock
from buffer_pipeline.errors import WindowClosed

CLIENTS: Final = 4
PAUSE_SECONDS_MAX: Final = 0.04
IDLE_SECONDS: Final = 10
FRONT: Final = range(50, 1_000)
"""Positions, in the order of release, of the holds for requests to be refused: mostly in the current batch.

The first positions are left out: these holds were skipped by the release, because a request had locked them.
"""

GOAL_MS: Final = 300

_WAITING: Final = """
SELECT hold.job
FROM buffer.unsettled_hold INNER JOIN buffer.hold ON unsettled_hold.hold_id = hold.hold_id
WHERE unsettled_hold.release_date > clock_timestamp() + interval '1 hour'
ORDER BY hold.hold_id
"""

# Others still see the holds that a batch has settled but not committed.
_IN_HAND: Final = """
SELECT hold.job
FROM (
  SELECT hold_id, release_date FROM buffer.unsettled_hold
  WHERE state = 'BUFFERED'
  ORDER BY release_hour, payee_wallet_id, hold_id
  LIMIT 1 OFFSET :place
) AS due
INNER JOIN buffer.hold ON due.hold_id = hold.hold_id
WHERE due.release_date <= clock_timestamp()
"""

_BATCHES: Final = """
SELECT
  batch.recorded_at,
  lead(batch.recorded_at) OVER (ORDER BY batch.batch_id) AS ended_at,
  settled.holds
FROM buffer.batch
INNER JOIN (
  SELECT batch_id, count(*) AS holds FROM buffer.transaction WHERE batch_id IS NOT NULL GROUP BY batch_id
) AS settled ON batch.batch_id = settled.batch_id
ORDER BY batch.batch_id
"""


@dataclass(frozen=True)
class Request:
    """One request: when it began, and how long it took with its commit."""

    began_at: datetime
    seconds: float
    accepted: bool


@dataclass(frozen=True)
class Batch:
    """A batch of the release. The duration of the last one is not known."""

    began_at: datetime
    seconds: float | None
    holds: int


class Clients:
    """Clients that request backjobs at the same time, until they are stopped."""

    def __init__(self, server: BenchmarkServer, database: str, *, seed: int) -> None:
        self._server = server
        self._database = database
        self._seed = seed
        engine = server.engine(database)
        with engine.connect() as connection:
            waiting = list(connection.scalars(text(_WAITING)))
        engine.dispose()
        random.Random(seed).shuffle(waiting)
        # Each job is used once: all threads take the next job from one iterator.
        self._waiting: Iterator[str] = iter(waiting)

    def ask(self, *, until: Callable[[], bool]) -> list[Request]:
        """Request backjobs until `until` is true. Return the requests in the order in which they began."""
        requests: list[Request] = []
        stop = threading.Event()
        threads = [
            threading.Thread(target=self._work, args=(self._seed + number, stop, requests))
            for number in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        while not until() and all(thread.is_alive() for thread in threads):
            time.sleep(0.02)
        stop.set()
        for thread in threads:
            thread.join()
        return sorted(requests, key=lambda request: request.began_at)

    def _work(self, seed: int, stop: threading.Event, requests: list[Request]) -> None:
        chance = random.Random(seed)
        engine = self._server.engine(self._database)
        with engine.connect() as connection:
            while not stop.is_set():
                time.sleep(chance.uniform(0, PAUSE_SECONDS_MAX))
                waits = chance.random() < 0.5
                job = next(self._waiting) if waits else _job_in_hand(connection, chance)
                if job is not None:
                    requests.append(_request(connection, job=job))
                    assert requests[-1].accepted == waits, job
        engine.dispose()


def _job_in_hand(connection: Connection, chance: random.Random) -> str | None:
    with connection.begin():
        job: str | None = connection.scalar(text(_IN_HAND), {"place": chance.choice(FRONT)})
    return job


def _request(connection: Connection, *, job: str) -> Request:
    began_at, began = datetime.now(UTC), time.perf_counter()
    accepted = True
    transaction = connection.begin()
    try:
        now = database_clock(connection)
        request_backjob(connection, job=job, by="client-1", reason="it leaks again", now=now)
        transaction.commit()
    except WindowClosed:
        transaction.rollback()
        accepted = False
    return Request(began_at, time.perf_counter() - began, accepted)


def quantile(requests: Sequence[Request], share: float) -> float:
    """Return the quantile of the requests' durations in milliseconds; 0.99 is p99."""
    seconds = sorted(request.seconds for request in requests)
    return seconds[min(int(len(seconds) * share), len(seconds) - 1)] * 1000


def _release(url: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from buffer_pipeline.cli.app import main; main()", "release", "--json"]
    return subprocess.Popen(
        command, env={**os.environ, "BUFFER_DATABASE_URL": url}, stdout=subprocess.DEVNULL
    )


def _batches(server: BenchmarkServer, database: str) -> list[Batch]:
    engine = server.engine(database)
    with engine.connect() as connection:
        rows = connection.execute(text(_BATCHES)).all()
    engine.dispose()
    return [
        Batch(row.recorded_at, row.ended_at and (row.ended_at - row.recorded_at).total_seconds(), row.holds)
        for row in rows
    ]


def measure(
    server: BenchmarkServer,
    *,
    due: int = 400_000,
    waiting: int = 100_000,
    wallets: int = 5_000,
    seed: int = 1,
) -> list[Figure]:
    """Measure requests while nothing else runs, and during a release of everything that is due."""
    with server.books() as database:
        fill(server, database, Shape(due=due, waiting=waiting, wallets=wallets))
        clients = Clients(server, database, seed=seed)
        deadline = time.monotonic() + IDLE_SECONDS
        idle = clients.ask(until=lambda: time.monotonic() > deadline)
        with _release(server.url(database)) as release:
            asked = clients.ask(until=lambda: release.poll() is not None)
        assert release.returncode == 0, release.returncode
        batches = _batches(server, database)
    assert sum(batch.holds for batch in batches) == due
    beside = [request for request in asked if batches[0].began_at <= request.began_at <= batches[-1].began_at]
    for name, requests in (("beside nothing", idle), ("beside a release", beside)):
        for kind, those in (
            ("accepted", [request for request in requests if request.accepted]),
            ("refused", [request for request in requests if not request.accepted]),
        ):
            print(
                f"  {name}, {len(those):,} {kind}: p50 {quantile(those, 0.5):.1f} ms,"
                f" p99 {quantile(those, 0.99):.1f} ms, longest {quantile(those, 1):.1f} ms",
                flush=True,
            )
    _print_batches(batches)
    figures = []
    for name, accepted in (("accepted", True), ("refused behind a batch's lock", False)):
        idle_p50 = quantile([request for request in idle if request.accepted == accepted], 0.5)
        those = [request for request in beside if request.accepted == accepted]
        for share in (0.5, 0.99):
            value = quantile(those, share)
            figures.append(
                Figure(
                    benchmark="latency",
                    name=f"request_backjob while a release runs, {name}, p{share * 100:.0f}",
                    value=value,
                    unit="ms",
                    yardstick="beside nothing, p50",
                    yardstick_value=idle_p50,
                    ratio=value / idle_p50,
                    goal=f"p99 under {GOAL_MS} ms",
                    met=value < GOAL_MS if share == 0.99 else None,
                )
            )
    return figures


def _print_batches(batches: Sequence[Batch]) -> None:
    seconds = sorted(batch.seconds for batch in batches if batch.seconds is not None)
    holds = [batch.holds for batch in batches]
    median, tenth, last = (seconds[int((len(seconds) - 1) * share)] * 1000 for share in (0.5, 0.9, 1))
    print(
        f"  {len(batches)} batches of {min(holds):,} to {max(holds):,} holds"
        f" (median {statistics.median(holds):,.0f}); lasted {median:.0f} ms (median), {tenth:.0f} ms (p90),"
        f" {last:.0f} ms (longest)",
        flush=True,
    )
    longest = sorted(
        (batch for batch in batches if batch.seconds is not None), key=lambda batch: -(batch.seconds or 0)
    )[:5]
    for batch in longest:
        place = batches.index(batch)
        print(
            f"    batch {place + 1}: {batch.holds:,} holds, {(batch.seconds or 0) * 1000:.0f} ms", flush=True
        )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--due", type=int, default=400_000)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--wallets", type=int, default=5_000)
    parser.add_argument("--runs", type=int, default=1)
    arguments = parser.parse_args()
    with benchmark_server() as server:
        for number in range(arguments.runs):
            for figure in measure(
                server,
                due=arguments.due,
                waiting=arguments.waiting,
                wallets=arguments.wallets,
                seed=number + 1,
            ):
                print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
