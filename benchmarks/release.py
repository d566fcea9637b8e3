"""How fast the command line releases, and with how much memory.

    uv run python benchmarks/release.py                      # 100,000 holds, 10,000 wallets
    uv run python benchmarks/release.py --memory             # peak memory at 10,000 and 1,000,000

Each run has an embedded server and books of its own in a temporary folder. The holds come in
through `add_many_pending_earnings`, in the order in which they mature, over three days. What is
timed is `buffer-pipeline release --json` as a process, on a server that runs already (as beside
`dev`): its statements, as it says itself, and all of it. Figures are printed, never asserted.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Engine, text

from buffer_pipeline.database import database_clock, make_engine, migrate
from buffer_pipeline.embedded import embedded_server
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.reconcile import reconcile

CHUNK = 5_000


def load(engine: Engine, *, holds: int, wallets: int) -> float:
    """Hold `holds` earnings that are all due, and return the seconds that it took."""
    began = time.perf_counter()
    with engine.connect() as connection:
        now = database_clock(connection)
        for start in range(0, holds, CHUNK):
            earnings = [
                Earning(
                    reference=f"earning-{number}",
                    job=f"job-{number}",
                    payee=f"worker-{number * 7919 % wallets}",
                    payer=f"client-{number * 104729 % wallets}",
                    amount=f"{100 + number % 900}.{number % 100:02d}",
                    currency="PHP",
                    title="Fix kitchen faucet",
                    held_at=now - timedelta(days=10) + timedelta(days=3) * (number / holds),
                )
                for number in range(start, min(start + CHUNK, holds))
            ]
            add_many_pending_earnings(connection, earnings, now=now)
            connection.commit()
    return time.perf_counter() - began


def release(url: str) -> tuple[dict[str, object], float, float, int]:
    """Run `buffer-pipeline release`; return its answer, all its seconds, its statements', its peak KiB."""
    command = [sys.executable, "-c", "from buffer_pipeline.cli import main; main()", "release", "--json"]
    began = time.perf_counter()
    with subprocess.Popen(
        command,
        env={**os.environ, "BUFFER_DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        answer = json.loads(process.stdout.read())
        said = re.search(r"\(([0-9.]+) s, ", process.stderr.read())
        assert said is not None
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    assert process.returncode == 0, process.returncode
    return answer, seconds, float(said[1]), int(usage.ru_maxrss)


def run(*, holds: int, wallets: int) -> None:
    """Load, release, reconcile, print."""
    with tempfile.TemporaryDirectory() as folder, embedded_server(Path(folder)) as server:
        engine = make_engine(server.books_url)
        migrate(engine)
        loaded = load(engine, holds=holds, wallets=wallets)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
        url = server.books_url.render_as_string(hide_password=False)
        answer, seconds, in_statements, peak = release(url)
        with engine.connect() as connection:
            broken = reconcile(connection)
        engine.dispose()
    assert answer["holds_released"] == holds, answer
    assert not broken, broken
    print(
        f"{holds:>9,} holds over {wallets:,} wallets: held at {holds / loaded:,.0f} a second,"
        f" released at {holds / in_statements:,.0f} a second, {holds / seconds:,.0f} with the process's start"
        f" ({seconds:.2f} s, {answer['batches']} batches), peak memory {peak / 1024:.0f} MiB, books balanced",
        flush=True,
    )


def main() -> None:
    """Print the figures that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--holds", type=int, default=100_000)
    parser.add_argument("--wallets", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="10,000 against 1,000,000 holds instead")
    arguments = parser.parse_args()
    # The parent's own size is no part of the figure.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss == 0
    if arguments.memory:
        for holds in (10_000, 1_000_000):
            run(holds=holds, wallets=arguments.wallets)
        return
    for _ in range(arguments.runs):
        run(holds=arguments.holds, wallets=arguments.wallets)


if __name__ == "__main__":
    main()
