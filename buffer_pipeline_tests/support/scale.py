"""The number of rounds, sequences and cases: a part, or all with `--everything`, as in CI."""

import os
from typing import Final

EVERYTHING: Final = "TESTS_EVERYTHING"
"""The environment variable with which conftest.py passes the option on before tests are imported."""


def runs_everything() -> bool:
    """Return True if this run has `--everything`."""
    return EVERYTHING in os.environ


def count(variable: str, *, part: int, whole: int) -> int:
    """Return the number in an environment variable; by default the whole, or a part of it."""
    return int(os.environ.get(variable, whole if runs_everything() else part))
