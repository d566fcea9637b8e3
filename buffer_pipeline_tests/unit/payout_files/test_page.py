"""docs/payout-files.md: its examples print what it says."""

import re
import subprocess
import sys
from typing import Final

import pytest

from buffer_pipeline.payouts.files.export import export_formats
from buffer_pipeline.payouts.files.status import StatusFileRefused, status_formats
from buffer_pipeline_tests.support.pages import DOCS
from buffer_pipeline_tests.support.status_files import pain_002, results, transaction

PAGE: Final = (DOCS / "payout-files.md").read_text(encoding="utf-8")
EXAMPLES: Final = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("code", "printed"), EXAMPLES)
def test_an_example_prints_what_the_page_shows(code: str, printed: str) -> None:
    """Each Python block is a program of its own."""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.rstrip("\n") == printed.rstrip("\n")


def test_there_are_examples_of_both_directions() -> None:
    """One writes, one reads."""
    assert len(EXAMPLES) == 2


def test_the_page_has_each_format() -> None:
    """The table has a row for each entry point."""
    rows = re.findall(r"^\| `([a-z0-9.]+)` \| (both|export|import) \|", PAGE, re.MULTILINE)

    assert {name for name, direction in rows if direction != "import"} == set(export_formats())
    assert {name for name, direction in rows if direction != "export"} == set(status_formats())


def test_the_faults_that_the_page_shows() -> None:
    """Files with these faults are refused in these words."""
    whole = pain_002("pain.002.001.10", transaction("payout-41", "ACSC"), "\n\n", transaction(None, "RJCT"))
    files = [
        whole,
        b"\n\n" + whole.split(b"\n", 1)[1].replace(b"001.10", b"001.12"),
        whole.split(b"</CstmrPmtStsRpt>")[0] + b"</CstmrPmtStsRpt>",
        b"<!DOCTYPE Document>" + whole.split(b"\n", 1)[1],
    ]

    for file in files:
        with pytest.raises(StatusFileRefused) as refusal:
            results("pain.002", file)
        assert f"\n{re.sub(r', column [0-9]+$', '', str(refusal.value))}\n" in PAGE
