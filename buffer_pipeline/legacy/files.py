"""Read the CSV files of the Django app's tables. Pure: files in, rows out.

The README of the tests' export (`buffer_pipeline_tests/support/legacy_export`) describes the columns and the
figures of a consistent export.
"""

import io
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from buffer_pipeline.csv_records import BrokenRecord, csv_records
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.inputs import require_file
from buffer_pipeline.money import parse_amount

# The columns that an import needs. The first one is the row's id.
_FILE_COLUMNS: Final = {
    "accounts_accounts": ("accountID",),
    "accounts_wallet": ("walletID", "accountFK_id", "balance", "pendingEarnings"),
    "accounts_transaction": (
        "transactionID",
        "walletID_id",
        "transactionType",
        "status",
        "amount",
        "balanceAfter",
        "referenceNumber",
        "relatedJobPosting_id",
        "createdAt",
        "completedAt",
    ),
    "jobs": (
        "jobID",
        "title",
        "clientAccountID",
        "paymentReleaseDate",
        "paymentReleasedToWorker",
        "paymentHeldReason",
    ),
    "job_disputes": ("disputeID", "jobID_id", "status", "reason", "openedDate"),
}
_ZERO: Final = re.compile(r"0+(\.0+)?")


@dataclass(frozen=True)
class Row:
    """A row of a file, by column. Its name is the file and its id, such as "accounts_wallet 12"."""

    name: str
    fields: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.fields[column]


def require_directory(directory: Path) -> None:
    """Refuse a path that is not a directory.

    Raises:
        InvalidInput: it does not exist, or it is a file.
    """
    if not directory.is_dir():
        raise InvalidInput(f"{directory}: is not a directory")


def read_files(directory: Path) -> dict[str, list[Row]]:
    """Return the rows of the five files that an import needs, by the file's name without `.csv`.

    Raises:
        InvalidInput: a file is missing, not UTF-8, not CSV, or has no such column; the message names it.
    """
    require_directory(directory)
    return {name: _read(directory, name) for name in _FILE_COLUMNS}


def is_waiting(row: Row) -> bool:
    """Return whether a transaction is still in the buffer."""
    return (row["transactionType"], row["status"]) == ("PENDING_EARNING", "PENDING")


def _read(directory: Path, name: str) -> list[Row]:
    file = f"{name}.csv"
    require_file(directory / file)
    try:
        content = (directory / file).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InvalidInput(f"{file}: is missing in {directory}") from None
    except OSError as error:
        raise InvalidInput(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file}: is not UTF-8; the first wrong byte is byte {error.start + 1}") from None
    records = csv_records(io.StringIO(content, newline=""))
    rows: list[Row] = []
    try:
        _, header = next(records, (1, []))
        for column in _FILE_COLUMNS[name]:
            if header.count(column) != 1:
                raise InvalidInput(f"{file}: needs one column {column}, has {header.count(column)}")
        for line, values in records:
            if not values:
                continue
            if len(values) != len(header):
                raise InvalidInput(
                    f"{file}: line {line} has {len(values)} fields, the header has {len(header)}"
                )
            fields = dict(zip(header, values, strict=True))
            rows.append(Row(f"{name} {fields[_FILE_COLUMNS[name][0]] or f'line {line}'}", fields))
    except BrokenRecord as broken:
        raise InvalidInput(f"{file}: line {broken.line}: {broken}") from None
    return rows


class Index:
    """Rows by the value of a column."""

    def __init__(self, rows: list[Row], column: str) -> None:
        self._rows = defaultdict[str, list[Row]](list)
        for row in rows:
            self._rows[row[column]].append(row)

    def all(self, value: str) -> list[Row]:
        return self._rows.get(value, [])

    def only(self, value: str, *, name: str) -> Row:
        """Return the only row with this value; none or several raise InvalidInput."""
        found = self.all(value)
        if not found:
            raise InvalidInput(f"{name.rstrip()} does not exist")
        if len(found) > 1:
            raise InvalidInput(f"{name} is on {len(found)} rows")
        return found[0]


def figure(name: str, text: str, currency: str, places: int) -> int:
    """Return a figure in minor units. Unlike an amount it may be 0 or negative."""
    unsigned = text.strip().removeprefix("-")
    if _ZERO.fullmatch(unsigned):
        unsigned_minor = 0
    else:
        try:
            unsigned_minor = parse_amount(unsigned, currency, places)
        except InvalidInput as refusal:
            raise InvalidInput(f"{name}: {refusal}") from None
    return -unsigned_minor if text.strip().startswith("-") else unsigned_minor
