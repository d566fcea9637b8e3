"""The memory of a process that writes a batch and reads its status."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from buffer_pipeline.payouts.files.export import export_formats
from buffer_pipeline.payouts.files.status import status_formats

FEW: Final = 2_000
MANY: Final = 20_000
MEGABYTES_MAX: Final = 10
"""How much more many payouts may take. In memory at once, their files would be far larger."""

WRITE: Final = """
import sys
from pathlib import Path
from buffer_pipeline.payouts.files.export import write_payouts
from buffer_pipeline_tests.support.payout_batches import many_header, many_lines

def work(number):
    with Path(sys.argv[2]).open("wb") as file:
        write_payouts(sys.argv[1], many_header(number), many_lines(number), file)
    return number
"""

READ: Final = """
import sys
from collections import Counter
from pathlib import Path
from buffer_pipeline.payouts.files.status import read_statuses
from buffer_pipeline_tests.support.large_status_files import write_status_file

def work(number):
    with Path(sys.argv[2]).open("wb") as file:
        write_status_file(sys.argv[1], number, file)
    with Path(sys.argv[2]).open("rb") as file:
        return sum(1 for _ in read_statuses(sys.argv[1], file, message_id="batch-7", skipped=Counter()))
"""

MEASURE: Final = """
import json, resource

def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

first = work(FEW), peak_megabytes()
then = work(MANY), peak_megabytes()
print(json.dumps([first, then]))
"""


def peaks(code: str, format_name: str, file: Path) -> list[tuple[int, float]]:
    """Return the number of payouts and the peak of memory, for few payouts and then for many."""
    numbers = f"FEW, MANY = {FEW}, {MANY}\n"
    command = [sys.executable, "-c", code + numbers + MEASURE, format_name, str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: list[tuple[int, float]] = json.loads(ran.stdout)
    return measured


@pytest.mark.parametrize("format_name", export_formats())
def test_a_large_batch_takes_no_more_memory(format_name: str, tmp_path: Path) -> None:
    """Lines are written one at a time."""
    few, many = peaks(WRITE, format_name, tmp_path / "batch")

    assert (few[0], many[0]) == (FEW, MANY)
    assert many[1] - few[1] < MEGABYTES_MAX


@pytest.mark.parametrize("format_name", status_formats())
def test_a_large_status_file_takes_no_more_memory(format_name: str, tmp_path: Path) -> None:
    """What was read is not kept, and neither is what a message has beside payments."""
    few, many = peaks(READ, format_name, tmp_path / "status")

    assert (few[0], many[0]) == (FEW, MANY)
    assert many[1] - few[1] < MEGABYTES_MAX
