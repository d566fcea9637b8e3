"""Each promise on the page of guarantees names tests that there are."""

import re
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
PAGE: Final = HERE.parent / "docs" / "guarantees.md"


def test_every_promise_names_tests_that_there_are() -> None:
    """A row without a test, or with the name of one that is gone, is found here."""
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
    named = {row: re.findall(r"`(test_\w+)::(test_\w+)`", row.rsplit("|", 2)[1]) for row in rows}

    missing = [
        f"{file}::{test}"
        for tests in named.values()
        for file, test in tests
        if f"def {test}(" not in (HERE / f"{file}.py").read_text(encoding="utf-8")
    ]

    assert len(rows) > 10
    assert [row for row, tests in named.items() if not tests] == []
    assert missing == []
