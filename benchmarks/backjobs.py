"""How long a decision takes on a backjob of a job with very many holds."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from benchmarks.figure import Figure
from benchmarks.server import BenchmarkServer
from buffer_pipeline.backjob import (
    Backjob,
    approve_backjob,
    reject_backjob,
    request_backjob,
    withdraw_backjob,
)
from buffer_pipeline.intake import Earning, add_many_pending_earnings

HOLDS: Final = (20_000, 100_000)
PAYEES: Final = 1_000
SECONDS_MAX: Final = 5
_CHUNK: Final = 10_000

_Decide = Callable[[Connection, int, datetime], Backjob]

DECISIONS: Final[dict[str, _Decide]] = {
    "rejected": lambda connection, backjob_id, now: reject_backjob(
        connection, backjob_id=backjob_id, by="admin-1", reason="fine", now=now
    ),
    "withdrawn": lambda connection, backjob_id, now: withdraw_backjob(
        connection, backjob_id=backjob_id, by="client-3", reason="settled", now=now
    ),
    "approved in part": lambda connection, backjob_id, now: approve_backjob(
        connection, backjob_id=backjob_id, by="admin-1", reason="half", amount="1000.00", now=now
    ),
    "approved whole": lambda connection, backjob_id, now: approve_backjob(
        connection, backjob_id=backjob_id, by="admin-1", reason="indeed", now=now
    ),
}


def measure(server: BenchmarkServer, *, sizes: tuple[int, ...] = HOLDS) -> list[Figure]:
    """Request a backjob on a job and decide it, in each of the ways, in books that were never analyzed."""
    figures: list[Figure] = []
    for holds in sizes:
        with server.books() as books:
            engine = server.engine(books)
            now = datetime.now(UTC)
            for first in range(0, holds, _CHUNK):
                with engine.begin() as connection:
                    add_many_pending_earnings(
                        connection,
                        [
                            Earning(
                                reference=f"earning-{number}",
                                job="job-8",
                                payee=f"worker-{number % PAYEES}",
                                payer="client-3",
                                amount="10.00",
                                currency="PHP",
                            )
                            for number in range(first, first + _CHUNK)
                        ],
                        now=now,
                        notify=False,
                    )
            for what, decide in DECISIONS.items():
                now += timedelta(minutes=1)
                with engine.begin() as connection:
                    opened = request_backjob(
                        connection, job="job-8", by="client-3", reason="it leaks", now=now
                    )
                began = time.perf_counter()
                with engine.begin() as connection:
                    decide(connection, opened.backjob_id, now)
                seconds = time.perf_counter() - began
                figures.append(
                    Figure(
                        benchmark="backjobs",
                        name=f"{what}, {holds:,} holds of one job",
                        value=seconds,
                        unit="s",
                        yardstick="goal",
                        yardstick_value=SECONDS_MAX,
                        ratio=seconds / SECONDS_MAX,
                        goal=f"under {SECONDS_MAX} s",
                        met=seconds < SECONDS_MAX,
                    )
                )
            engine.dispose()
    return figures
