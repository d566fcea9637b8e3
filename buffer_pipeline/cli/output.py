"""The output of a command: a table or text, or one JSON document."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TextIO

from buffer_pipeline.errors import SettingError
from buffer_pipeline.money import NO_PLACES, Places, format_amount, with_amounts

if TYPE_CHECKING:
    from buffer_pipeline.cli.progress import Advance

_zone: Final[ContextVar[tzinfo]] = ContextVar("_zone", default=UTC)


@contextmanager
def times_in(name: str) -> Iterator[None]:
    """Show all times in a time zone of the IANA database until the end of the block.

    Raises:
        SettingError: there is no such zone.
    """
    from buffer_pipeline.notifications.locales import find_zone

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
    """Return `value` for JSON: amounts as text with the decimal places of the currency, times as ISO 8601.

    In a row, `amount_minor` becomes `amount`, in the `currency` of the row (`with_amounts`). Its `metadata`
    stays as it is, whatever its keys are.
    """
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Decimal):
        # The sum of bigints in PostgreSQL. JSON has no decimal numbers, and a float would lose digits.
        return int(value) if value == value.to_integral_value() else str(value)
    if isinstance(value, Mapping):
        currency = value.get("currency", currency)
        amounts = with_amounts(value, places, currency)
        return {
            key: item if key == "metadata" else present(item, places, currency)
            for key, item in amounts.items()
        }
    if isinstance(value, list | tuple):
        return [present(item, places, currency) for item in value]
    return value


def rows_of_page(items: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the items of a list as rows. Amounts are shown with their places, so those are left out."""
    return [{name: value for name, value in asdict(item).items() if name != "places"} for item in items]


def facts_of(error: Exception) -> dict[str, Any]:
    """Return the attributes of an error that JSON can express, such as `hold_id`."""
    facts = {}
    for name, value in vars(error).items():
        shown = present(value)
        # Names with an underscore are private. The type and the message are written for every error.
        if not name.startswith("_") and name not in {"type", "message"} and _is_fact(shown):
            facts[name] = shown
    return facts


def _is_fact(value: Any) -> bool:
    if value is None or value == []:
        return False  # The error has no such value.
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def amounts_by_currency(amounts_minor: Mapping[str, int], places: Places) -> dict[str, str]:
    """Return amounts in minor units as text, sorted by currency."""
    return {code: format_amount(minor, places[code]) for code, minor in sorted(amounts_minor.items())}


def money(amounts_minor: Mapping[str, int], places: Places) -> str:
    """Return amounts as text, such as 5000 JPY, 1250.50 PHP."""
    return ", ".join(
        f"{amount} {code}" for code, amount in amounts_by_currency(amounts_minor, places).items()
    )


def write_json(document: Any) -> None:
    """Write one document to stdout. Letters that its encoding does not have are escaped."""
    line = json.dumps(document, ensure_ascii=False)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        line = json.dumps(document)
    sys.stdout.write(line + "\n")


def notice(text: str) -> None:
    """Write a message to stderr that is not part of the answer, such as which books were created.

    If it cannot be written, the command continues.
    """
    # None if the shell has closed it (`2>&-`), although its type does not say so.
    stream: TextIO | None = sys.stderr
    with suppress(OSError):
        if stream is not None:
            stream.write(text + "\n")


@dataclass(frozen=True)
class Output:
    """Prints the answer of a command."""

    as_json: bool

    def answer(self, document: Any, *, text: str | None = None) -> None:
        """Print the answer: `document` as JSON, or `text`; without a text, the document line by line."""
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
        """Print rows that `present` returned: as JSON with all columns, or as a table of `columns`.

        The heading of a column is its name, unless `headings` has another one.
        """
        if self.as_json:
            self.answer(list(rows))
            return
        if not rows:
            sys.stdout.write(empty + "\n")
            return
        names = [headings.get(column, column).replace("_", " ") for column in columns]
        cells = [[_cell(row.get(column)) for column in columns] for row in rows]
        if sys.stdout.isatty():
            _print_folded(names, cells)
        else:
            _print_lines([names, *cells])

    def remark(self, text: str) -> None:
        """Print a message that is not part of the answer; to stderr if the answer is JSON."""
        stream = sys.stderr if self.as_json else sys.stdout
        stream.write(text + "\n")

    @property
    def shows_progress(self) -> bool:
        """Return True if stderr is a terminal, which shows a progress bar."""
        return sys.stderr.isatty()

    def progress(self, what: str, *, total: int | None, unit: str = "") -> AbstractContextManager["Advance"]:
        """Show a bar with the rate in `unit` per second and the time that is left, on a terminal only."""
        from buffer_pipeline.cli.progress import progress_bar

        return progress_bar(what, total=total, unit=unit, disable=not self.shows_progress)


def _print_folded(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*names, box=None, header_style="bold")
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        # As text, because "[job]" in a name is not markup.
        table.add_row(*map(Text, row))
    Console().print(table)


def _print_lines(rows: Sequence[Sequence[str]]) -> None:
    """Print one line for each row. A pipe has no width and needs no colors."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("".join(f" {cell} " for cell in padded) + "\n")


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
