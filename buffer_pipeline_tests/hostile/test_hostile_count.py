"""The number of hostile cases, from the declarations and runs of the tests."""

import importlib
import random
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buffer_pipeline_tests.support.hostile import DECLARED, cases
from buffer_pipeline_tests.support.scale import EVERYTHING

CASES_MIN: Final = 20_000


def test_there_are_twenty_thousand_hostile_cases() -> None:
    """The tests declare this many in total, and each fails if it runs fewer than it declares."""
    for file in Path(__file__).parent.glob("test_hostile_*.py"):
        importlib.import_module(f"{__package__}.{file.stem}")

    assert sum(DECLARED.values()) >= CASES_MIN, DECLARED


def test_fewer_cases_than_declared_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strategy that is exhausted early, such as one of two values, fails the test."""

    @given(value=st.booleans())
    def two_values(value: bool) -> None:
        assert random.random() < 2 or value

    monkeypatch.setenv(EVERYTHING, "1")
    name = f"{two_values.__module__}.{two_values.__qualname__}"
    counted = cases(50)(two_values)
    del DECLARED[name]

    with pytest.raises(AssertionError, match="2 cases ran of 50"):
        counted()
