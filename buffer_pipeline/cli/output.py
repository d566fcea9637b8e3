"""What a command prints: a table for people, or one JSON document for programs."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Protocol, TextIO

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

from buffer_pipeline.currencies import NO_PLACES, Places, with_amounts
from buffer_pipeline.errors import SettingError
from buffer_pipeline.money import format_amount

_zone: Final[ContextVar[tzinfo]] = ContextVar("_zone", default=UTC)


@contextmanager
def times_in(name: str) -> Iterator[None]:
    """Have times shown in a zone of the IANA database meanwhile, whoever shows them.

    Raises:
        SettingError: there is no such zone.
    """
    from buffer_pipeline.voice import find_zone

    zone = find_zone(name)
    if zone is None:
        raise SettingError(f"--tz {name!r}: not in the IANA database, such as Asia/Manila")
    token = _zone.set(zone)
    try:
        yield
    finally:
        _zone.reset(token)


def iso(moment: datetime) -> str:
    """Return an ISO 8601 time in UTC, such as 2026-11-18T23:35:00Z, or in the zone of `times_in`."""
    try:
        local = moment.astimezone(_zone.get())
    except OverflowError:
        # It has a year in UTC only.
        local = moment.astimezone(UTC)
    return local.isoformat().replace("+00:00", "Z")


def present(value: Any, places: Places = NO_PLACES, currency: str | None = None) -> Any:
    """Return `value` as JSON has it: amounts as text with the currency's places, times as ISO 8601.

    In a row, `amount_minor` becomes `amount`, in the row's own `currency`, as `with_amounts` has it.
    """
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Decimal):
        # As PostgreSQL has the sum of a bigint: JSON has no such number, and a float would lose its cents.
        return int(value) if value == value.to_integral_value() else str(value)
    if isinstance(value, Mapping):
        currency = value.get("currency", currency)
        amounts = with_amounts(value, places, currency)
        return {key: present(item, places, currency) for key, item in amounts.items()}
    if isinstance(value, list | tuple):
        return [present(item, places, currency) for item in value]
    return value


def facts_of(error: Exception) -> dict[str, Any]:
    """Return what an error knows beside its message, such as `hold_id`, where JSON can have it."""
    facts = {}
    for name, value in vars(error).items():
        shown = present(value)
        # What starts with an underscore is the error's own; every error has a type and a message.
        if not name.startswith("_") and name not in {"type", "message"} and _is_fact(shown):
            facts[name] = shown
    return facts


def _is_fact(value: Any) -> bool:
    if value is None or value == []:
        return False  # The refusal is not about it.
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def amounts_by_currency(amounts_minor: Mapping[str, int], places: Places) -> dict[str, str]:
    """Return amounts in minor units as text, by currency in order."""
    return {code: format_amount(minor, places[code]) for code, minor in sorted(amounts_minor.items())}


def money(amounts_minor: Mapping[str, int], places: Places) -> str:
    """Return amounts for people, such as 5000 JPY, 1250.50 PHP."""
    return ", ".join(
        f"{amount} {code}" for code, amount in amounts_by_currency(amounts_minor, places).items()
    )


def write_json(document: Any) -> None:
    """Write one document to stdout; what stdout's encoding does not have is escaped, as JSON has it."""
    line = json.dumps(document, ensure_ascii=False)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        line = json.dumps(document)
    sys.stdout.write(line + "\n")


def notice(text: str) -> None:
    """Tell a person something that no answer has room for, such as which books were made: to stderr.

    Where nobody can read that, the command goes on.
    """
    # None where the shell has closed it (`2>&-`), whatever its type says.
    stream: TextIO | None = sys.stderr
    with suppress(OSError):
        if stream is not None:
            stream.write(text + "\n")


class Advance(Protocol):
    """How a progress bar is told of progress."""

    def __call__(self, steps: int, *, more: int = 0) -> None:
        """Take so many steps, of so many `more` than were known."""


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

    def table(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        columns: Sequence[str],
        empty: str,
        headings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Print rows that went through `present`: all of each as JSON, some columns for people.

        A column's heading is its name, where `headings` has no other.
        """
        if self.as_json:
            self.answer(list(rows))
            return
        if not rows:
            sys.stdout.write(empty + "\n")
            return
        names = [headings.get(column, column).replace("_", " ") for column in columns]
        table = Table(*names, box=None, header_style="bold")
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
    def progress(self, what: str, *, total: int | None, unit: str = "") -> Iterator[Advance]:
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
