"""Measure each figure and its yardstick in one run on one server.

    uv run python -m benchmarks                              # all of them, about an hour
    uv run python -m benchmarks drain latency                # some
    uv run python -m benchmarks --json                       # for a program

Figures are printed, one per line, and never asserted. They depend on the machine; the ratios depend less on
it.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks import (
    api,
    backjobs,
    cli,
    counts,
    cycles,
    debts,
    drain,
    intake,
    latency,
    migration,
    partitions,
    payouts,
    reads,
    shares,
    ticks,
)
from benchmarks.figure import Figure
from benchmarks.server import BenchmarkServer, benchmark_server

BENCHMARKS: Final[dict[str, Callable[[BenchmarkServer], list[Figure]]]] = {
    "drain": drain.measure,
    "debts": debts.measure,
    "payouts": payouts.measure,
    "history": drain.history,
    "latency": latency.measure,
    "intake": intake.measure,
    "shares": shares.measure,
    "counts": counts.measure,
    "ticks": ticks.measure,
    "cycles": cycles.measure,
    "memory": drain.memory,
    "partitions": partitions.measure,
    "migration": migration.measure,
    "reads": reads.measure,
    "backjobs": backjobs.measure,
    "cli": cli.measure,
    "api": api.measure,
}


def main() -> None:
    """Run the benchmarks that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"{unknown[0]!r} is none of {', '.join(BENCHMARKS)}")
    figures: list[Figure] = []
    with benchmark_server() as server:
        about = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **machine(), **server.settings()}
        say = sys.stderr if arguments.json else sys.stdout
        print(", ".join(f"{name} {value}" for name, value in about.items()), file=say, flush=True)
        for name in arguments.names or BENCHMARKS:
            measured = BENCHMARKS[name](server)
            figures += measured
            for figure in measured:
                print(figure.line(), file=say, flush=True)
    if arguments.json:
        print(json.dumps({"about": about, "figures": [asdict(figure) for figure in figures]}, indent=2))


def machine() -> dict[str, str]:
    """Return the machine's processor and memory."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory_kb = int(Path("/proc/meminfo").read_text(encoding="utf-8").split()[1])
    return {
        "processor": f"{len(models)} x {models[0] if models else platform.machine()}",
        "memory": f"{memory_kb / 1024**2:.0f} GiB",
    }


if __name__ == "__main__":
    main()
