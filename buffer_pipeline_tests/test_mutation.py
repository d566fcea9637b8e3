"""The list of mutants that may survive is about the code as it stands."""

import inspect
from functools import reduce
from importlib import import_module

from mutation.survivors import Change, accepted_survivors


def lines_of(change: Change) -> set[str]:
    """Return the lines of the function that a change is in."""
    room = import_module(f"buffer_pipeline.{change.room}")
    function = reduce(getattr, change.function.split("."), room)
    return {line.strip() for line in inspect.getsource(function).splitlines()}


def test_survivors_are_changes_of_code_that_is_there() -> None:
    """Each names a function of a room, the lines that it has and other ones, and has a reason."""
    listed = accepted_survivors()
    changes = [change for reason in listed for change in reason.mutants]

    gone = [str(change) for change in changes if not set(change.was.splitlines()) <= lines_of(change)]

    assert gone == []
    assert all(change.was != change.became for change in changes)
    assert all(reason.reason.endswith(".") and reason.mutants for reason in listed)
    assert changes
