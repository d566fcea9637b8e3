"""The list of accepted mutants matches the code, and the selection of tests the tests."""

import inspect
import re
import tomllib
from functools import reduce
from importlib import import_module

from buffer_pipeline_tests.support.paths import ROOT
from mutation.survivors import Change, accepted_survivors


def lines_of(change: Change) -> set[str]:
    """Return the lines of the function that a mutant changes."""
    module = import_module(f"buffer_pipeline.{change.module}")
    function = reduce(getattr, change.function.split("."), module)
    return {line.strip() for line in inspect.getsource(function).splitlines()}


def test_survivors_are_mutants_of_existing_code() -> None:
    """Each names a function, its changed lines and their replacement, and has a reason."""
    listed = accepted_survivors()
    changes = [change for reason in listed for change in reason.mutants]

    gone = [str(change) for change in changes if not set(change.was.splitlines()) <= lines_of(change)]

    assert gone == []
    assert all(change.was != change.became for change in changes)
    assert all(reason.reason.endswith(".") and reason.mutants for reason in listed)
    assert changes


def test_selection_names_existing_modules_and_tests() -> None:
    """A renamed slow test would otherwise be run for every mutant."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    *files, _, expression = settings["pytest_add_cli_args_test_selection"]
    tests = "\n".join(file.read_text() for file in (ROOT / "buffer_pipeline_tests").rglob("test_*.py"))

    missing = [name for name in (*settings["only_mutate"], *files) if not (ROOT / name).exists()]
    unknown = [
        word
        for word in re.findall(r"not (\w+)", expression)
        if not re.search(rf"^def test_\w*{word}", tests, re.MULTILINE)
    ]

    assert missing == []
    assert unknown == []
