"""How long a batch of payouts takes as a file, and the status file that answers it; and how much memory.

    uv run python benchmarks/payout_files.py                 # 100,000 payouts

For each format the batch is written to a file, and a status file with one result per payout is read. The
database is not used. Each runs in a process of its own, whose largest resident set is printed. Figures are
printed, never asserted.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path

from buffer_pipeline.payouts.files.export import export_formats, write_payouts
from buffer_pipeline.payouts.files.status import read_statuses, status_formats
from buffer_pipeline_tests.support.large_status_files import write_status_file
from buffer_pipeline_tests.support.payout_batches import many_header, many_lines


def measure_export(format_name: str, payouts: int, path: Path) -> None:
    """Write a batch, and print the figures."""
    begun_at = time.monotonic()
    with path.open("wb") as file:
        write_payouts(format_name, many_header(payouts), many_lines(payouts), file)
    report(f"export {format_name}", payouts, time.monotonic() - begun_at, path)


def measure_import(format_name: str, payouts: int, path: Path) -> None:
    """Write a status file, read it, and print the figures of the reading."""
    with path.open("wb") as file:
        write_status_file(format_name, payouts, file)
    skipped: Counter[str] = Counter()
    begun_at = time.monotonic()
    with path.open("rb") as file:
        read = sum(1 for _ in read_statuses(format_name, file, message_id="batch-7", skipped=skipped))
    report(f"import {format_name}", read, time.monotonic() - begun_at, path)


def report(what: str, payouts: int, seconds: float, path: Path) -> None:
    """Print one line."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(
        f"{what}: {payouts:,} payouts in {seconds:.1f} s, {payouts / seconds:,.0f} a second;"
        f" {path.stat().st_size / 1e6:.0f} MB on disk, {memory:.0f} MB of memory",
        flush=True,
    )


def main() -> None:
    """Measure each format."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--payouts", type=int, default=100_000)
    payouts = parser.parse_args().payouts
    work = [(measure_export, name) for name in export_formats()]
    work += [(measure_import, name) for name in status_formats()]
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for function, format_name in work:
            process = context.Process(target=function, args=(format_name, payouts, Path(folder) / "file"))
            process.start()
            process.join()


if __name__ == "__main__":
    main()
