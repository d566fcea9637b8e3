"""How many hostile cases there are, counted from what each test declares and runs."""

import importlib
import random
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buffer_pipeline_tests.hostile import DECLARED, cases

CASES_MIN: Final = 20_000


def test_there_are_twenty_thousand_hostile_cases() -> None:
    """The tests of this kind declare so many together, and each fails when it runs fewer than it declares."""
    for file in Path(__file__).parent.glob("test_hostile_*.py"):
        importlib.import_module(f"{__package__}.{file.stem}")

    assert sum(DECLARED.values()) >= CASES_MIN, DECLARED


def test_fewer_cases_than_declared_fail() -> None:
    """A strategy that runs out, as one of two values, is noticed."""

    @given(value=st.booleans())
    def two_values(value: bool) -> None:
        assert random.random() < 2 or value

    name = f"{two_values.__module__}.{two_values.__qualname__}"
    counted = cases(50)(two_values)
    del DECLARED[name]

    with pytest.raises(AssertionError, match="2 cases ran of 50"):
        counted()
