"""Each promise in docs/guarantees.md names existing tests."""

import re
from typing import Final

from buffer_pipeline_tests.support.paths import ROOT

TESTS: Final = ROOT / "buffer_pipeline_tests"
PAGE: Final = ROOT / "docs" / "guarantees.md"


def test_every_promise_names_existing_tests() -> None:
    """A row without a test, or with a test that is gone, is reported."""
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
    named = {row: re.findall(r"`(test_\w+)::(test_\w+)`", row.rsplit("|", 2)[1]) for row in rows}

    missing = [
        f"{file}::{test}"
        for tests in named.values()
        for file, test in tests
        if not any(f"def {test}(" in found.read_text(encoding="utf-8") for found in TESTS.rglob(f"{file}.py"))
    ]

    assert len(rows) > 10
    assert [row for row, tests in named.items() if not tests] == []
    assert missing == []
