"""A progress bar on a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Advance(Protocol):
    """Advances a progress bar."""

    def __call__(self, steps: int, *, more: int = 0) -> None:
        """Advance by `steps`, and raise the total by `more`."""


@contextmanager
def progress_bar(what: str, *, total: int | None, unit: str, disable: bool) -> Iterator[Advance]:
    """Show a bar on stderr with the rate in `unit` per second and the time that is left."""
    with Progress(
        TextColumn(what),
        BarColumn(bar_width=20),  # With the rate, the line fits into 80 columns.
        MofNCompleteColumn(),
        _RateColumn(unit),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=disable,
    ) as bar:
        task = bar.add_task(what, total=total)
        known = total or 0

        def advance(steps: int, *, more: int = 0) -> None:
            nonlocal known
            known += more
            bar.update(task, advance=steps, total=known if more else None)

        yield advance


class _RateColumn(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        # The rate of the last half minute; empty before the second step.
        return Text("" if task.speed is None else f"{task.speed:,.0f} {self._unit}/s")
