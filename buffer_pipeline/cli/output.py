"""What a command prints: a table for people, or one JSON document for programs."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

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
from rich.table import Table
from rich.text import Text

from buffer_pipeline.money import format_amount

_MINOR: Final = "_minor"


def iso(moment: datetime) -> str:
    """Return an ISO 8601 time in UTC, such as 2026-11-18T23:35:00Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def present(value: Any, currency: str | None = None) -> Any:
    """Return `value` as JSON has it: amounts as text with the currency's places, times as ISO 8601.

    In a row, `amount_minor` becomes `amount`, in the row's own `currency`.
    """
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Mapping):
        currency = value.get("currency", currency)
        return {
            key.removesuffix(_MINOR): format_amount(int(item), currency)
            if key.endswith(_MINOR) and item is not None and currency is not None
            else present(item, currency)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [present(item, currency) for item in value]
    return value


def amounts_by_currency(amounts_minor: Mapping[str, int]) -> dict[str, str]:
    """Return amounts in minor units as text, by currency in order."""
    return {code: format_amount(minor, code) for code, minor in sorted(amounts_minor.items())}


def money(amounts_minor: Mapping[str, int]) -> str:
    """Return amounts for people, such as 5000 JPY, 1250.50 PHP."""
    return ", ".join(f"{amount} {code}" for code, amount in amounts_by_currency(amounts_minor).items())


def counted(number: int, what: str) -> str:
    """Return a number of things, such as 1 batch or 2,000 batches."""
    plural = "es" if what.endswith("ch") else "s"
    return f"{number:,} {what}" + ("" if number == 1 else plural)


def write_json(document: Any) -> None:
    """Write one document to stdout; what stdout's encoding does not have is escaped, as JSON has it."""
    line = json.dumps(document, ensure_ascii=False)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        line = json.dumps(document)
    sys.stdout.write(line + "\n")


@dataclass(frozen=True)
class Output:
    """Where a command's answer goes."""

    as_json: bool

    def answer(self, document: Any, *, text: str | None = None) -> None:
        """Print the answer: `document` as JSON, or `text` (or the document's lines) for people."""
        if self.as_json:
            write_json(document)
            return
        if text is None:
            text = "\n".join(f"{key}: {_cell(value)}" for key, value in document.items())
        sys.stdout.write(text + "\n")

    def table(self, rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str], empty: str) -> None:
        """Print rows that went through `present`: all of each as JSON, some columns for people."""
        if self.as_json:
            self.answer(list(rows))
            return
        if not rows:
            sys.stdout.write(empty + "\n")
            return
        table = Table(*[column.replace("_", " ") for column in columns], box=None, header_style="bold")
        for column in table.columns:
            column.overflow = "fold"
        for row in rows:
            # As text: somebody's "[job]" is no markup.
            table.add_row(*[Text(_cell(row.get(column))) for column in columns])
        console = Console()
        if not console.is_terminal:
            # A pipe has no width to fold for: one row stays one line.
            console = Console(
                width=sum(len(_cell(cell)) + 4 for row in rows[:1] for cell in row.values()) + 400
            )
        console.print(table)

    def remark(self, text: str) -> None:
        """Tell a person something that is not the answer: to stderr where the answer is JSON."""
        stream = sys.stderr if self.as_json else sys.stdout
        stream.write(text + "\n")

    @property
    def shows_progress(self) -> bool:
        """Whether somebody sees a progress bar: stderr is a terminal."""
        return sys.stderr.isatty()

    @contextmanager
    def progress(self, what: str, *, total: int | None, unit: str = "") -> Iterator[Callable[[int], None]]:
        """Show a bar with the rate in `unit` a second and the time that is left on a terminal, and
        nothing elsewhere.
        """
        with Progress(
            TextColumn(what),
            BarColumn(bar_width=20),  # With the rate, all of it fits into 80 columns.
            MofNCompleteColumn(),
            _RateColumn(unit),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not self.shows_progress,
        ) as bar:
            task = bar.add_task(what, total=total)
            yield lambda steps: bar.advance(task, steps)


class _RateColumn(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        # Of the last half minute; nothing before the second step.
        return Text("" if task.speed is None else f"{task.speed:,.0f} {self._unit}/s")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items())
    return str(value)
