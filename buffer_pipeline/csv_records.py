"""The records of a CSV file, up to the first one that is broken."""

import csv
from collections.abc import Iterable, Iterator
from typing import Final

from buffer_pipeline.errors import InvalidInput

FIELD_LENGTH_MAX: Final = 2**24
"""Characters of one field. It is far above the limit of any column, so that a field that is too long is
refused by its column's name. It is far below what would fill the memory if a quote is never closed."""


class BrokenRecord(InvalidInput):
    """The text is not CSV from this record on."""

    def __init__(self, reason: object, *, line: int, lines_not_read: int) -> None:
        self.line = line
        """The line on which the record begins."""
        self.lines_not_read = lines_not_read
        """The number of lines after that one."""
        last = line + lines_not_read
        not_read = {0: "", 1: f"; line {last} was not read"}.get(
            lines_not_read, f"; lines {line + 1} to {last} were not read"
        )
        super().__init__(f"broken line: {reason}{not_read}")


def csv_records(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number at which each record begins, and its fields. An empty line has no fields.

    `lines` come from a file that was opened with `newline=""`. Nothing is read after an error, because
    Python's reader would continue inside the broken field, whose text may look like a record.

    Raises:
        BrokenRecord: a record is not CSV.
    """
    # The limit is the whole process's, so it is only raised, never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), FIELD_LENGTH_MAX))
    lines = iter(lines)
    reader = csv.reader(lines, strict=True)
    line = 1
    try:
        for fields in reader:
            yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        lines_not_read = reader.line_num - line + sum(1 for _ in lines)
        raise BrokenRecord(error, line=line, lines_not_read=lines_not_read) from None
