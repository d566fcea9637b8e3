"""Books with due holds, and their state after a crash."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Engine, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import make_engine
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline_tests.support.builders import NOON, PAYER, WAIT_SECONDS_MAX, end_state
from buffer_pipeline_tests.support.cluster import Cluster
from buffer_pipeline_tests.support.crasher import BATCH_LIMIT

HOLDS: Final = 2 * BATCH_LIMIT

EndState = dict[str, list[tuple[Any, ...]]]


def hold_due(engine: Engine, holds: int, *, wallets: int) -> None:
    """Add earnings of many sizes, all due at DAY_7, over some release hours."""
    with engine.begin() as connection:
        for first in range(0, holds, 5_000):
            add_many_pending_earnings(
                connection,
                [
                    Earning(
                        # In the order of the release dates.
                        reference=f"earning-{3 - number % 3}-{number:05}",
                        job=f"job-{number}",
                        payee=f"worker-{number % wallets}",
                        payer=PAYER,
                        amount=f"{10 + number}.{number % 100:02d}",
                        currency="PHP",
                        held_at=NOON - timedelta(hours=number % 3),
                    )
                    for number in range(first, min(first + 5_000, holds))
                ],
                now=NOON,
            )


def end_of(engine: Engine) -> EndState:
    """Return the end state of the books, which must be sound."""
    with engine.connect() as connection:
        assert reconcile(connection) == []
        return end_state(connection)


def released(engine: Engine) -> int:
    """Return the number of released holds."""
    with engine.connect() as connection:
        found: int = connection.execute(
            text("SELECT count(*) FROM buffer.transaction WHERE type = 'EARNING'")
        ).scalar_one()
        return found


@contextmanager
def engine_on(url: str) -> Iterator[Engine]:
    """Yield an engine on these books."""
    engine = make_engine(url)
    yield engine
    engine.dispose()


def failure(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit code of a failed command, and its only line of output."""
    out, err = process.communicate(timeout=WAIT_SECONDS_MAX)
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert "Traceback" not in out
    return process.returncode, lines[0]


def require_sound_files(cluster: Cluster, database: str) -> None:
    """Fail unless pg_amcheck finds every table and index of the books sound."""
    output = cluster.run(
        "pg_amcheck",
        f"--host={cluster.folder}",
        "--username=postgres",
        f"--database={database}",
        "--install-missing",
        "--heapallindexed",
        "--parent-check",
        "--rootdescend",
    )
    assert output == ""
