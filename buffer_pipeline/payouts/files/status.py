"""Reads a bank's or a provider's status file, line by line.

A new format is a file with a class like `CsvStatuses` and an entry point in the group
`buffer_pipeline.payout_statuses`.
"""

import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from importlib.metadata import entry_points
from typing import BinaryIO, Final, Protocol

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.payouts.result import PayoutResult, RestOfBatch

ENTRY_POINTS: Final = "buffer_pipeline.payout_statuses"
END_TO_END_ID_LENGTH_MAX: Final = 35
"""As ISO 20022 has it (Max35Text)."""

DUPLICATE: Final = "rejected as a duplicate"
"""What is counted of a payment that a bank has rejected because it has the same one already. If a file was
uploaded twice, the bank pays the first one: the money must not be back in the balance too."""

_FAULT_LENGTH_MAX: Final = 300

_HEAD_BYTES: Final = 65_536
_NAMESPACE: Final = re.compile(rb"urn:iso:std:iso:20022:tech:xsd:([a-z]{4}\.[0-9]{3})")

# ISO 20022 has 18 digits, 5 of them after the point.
_AMOUNT: Final = re.compile(r"[0-9]{1,18}(\.[0-9]{0,5})?")


class StatusFileRefused(InvalidInput):
    """A status file cannot be read. Nothing of it may be kept: roll back what was read before.

    `fault` says what is wrong. `line` is the line of the file, and `record` the number of the payout, entry
    or row on it; each is None if the fault has none.
    """

    def __init__(self, fault: str, *, line: int | None = None, record: int | None = None) -> None:
        # A parser's message may repeat what is in the file.
        clean = " ".join("".join(each if each.isprintable() else " " for each in fault).split())
        self.fault = clean[:_FAULT_LENGTH_MAX]
        self.line = line
        self.record = record
        where = "".join(
            f", {what} {number}" for what, number in (("line", line), ("record", record)) if number
        )
        super().__init__(f"status file{where}: {self.fault}")


class PayoutStatuses(Protocol):
    """A format of a status file. The class of an entry point is called without arguments."""

    def read(
        self, file: BinaryIO, *, message_id: str | None, skipped: Counter[str]
    ) -> Iterator[PayoutResult | RestOfBatch]:
        """Yield the final results in the file's order. Memory does not grow with the file.

        What is not final is added to `skipped` by its status. If the file names the message that it answers,
        this must be `message_id`, unless that is None.

        Raises:
            StatusFileRefused: the file is not of this format, is broken or cut off, or answers another
                message.
        """


def status_formats() -> tuple[str, ...]:
    """Return the names of the installed formats."""
    return tuple(sorted(point.name for point in entry_points(group=ENTRY_POINTS)))


def detect_status_format(file: BinaryIO) -> str:
    """Return the format of a file that is open for bytes: a message of ISO 20022, or else csv.

    The file is read from where it was again.

    Raises:
        StatusFileRefused: it is XML, and no message that is read here.
    """
    start = file.tell()
    # Without the zeros of UTF-16.
    head = file.read(_HEAD_BYTES).replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    file.seek(start)
    if not head.startswith(b"<"):
        return "csv"
    found = _NAMESPACE.search(head)
    name = "" if found is None else found[1].decode()
    messages = [each for each in status_formats() if each != "csv"]
    if name not in messages:
        raise StatusFileRefused(
            f"is XML and {'not a message of ISO 20022' if found is None else 'a ' + name}; read are csv,"
            f" {', '.join(messages)}",
            line=1,
        )
    return name


def read_statuses(
    format_name: str, file: BinaryIO, *, message_id: str | None, skipped: Counter[str]
) -> Iterator[PayoutResult | RestOfBatch]:
    """Return an iterator over the results in a file that is open for bytes.

    `message_id` is the id of the file that was sent (`BankIds.of_batch`). After the last result, `skipped`
    has counted the statuses that are not final. One payout may come more than once; the last result counts.

    Raises:
        InvalidInput: there is no such format.
        StatusFileRefused: as `PayoutStatuses.read`, while the results are read.
        MissingExtra: the format needs the extra `payouts`.
    """
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if format_name not in points:
        raise InvalidInput(f"format {format_name!r}: cannot be read; there are {', '.join(sorted(points))}")
    statuses: PayoutStatuses = points[format_name].load()()
    return statuses.read(file, message_id=message_id, skipped=skipped)


def amount_of(text: str | None, *, line: int, record: int) -> Decimal | None:
    """Return the amount of a line in a status file, None if it has none.

    Raises:
        StatusFileRefused: it is not a number above zero such as 1250.50.
    """
    if not text:
        return None
    if not _AMOUNT.fullmatch(text):
        raise StatusFileRefused(f"amount {text[:40]!r}: not such as 1250.50", line=line, record=record)
    return Decimal(text)


def require_end_to_end_id(value: str | None, *, line: int, record: int) -> str:
    """Return the id of a line in a status file.

    Raises:
        StatusFileRefused: it is missing, longer than 35 characters or not printable.
    """
    if not value:
        raise StatusFileRefused("has no end-to-end id", line=line, record=record)
    if len(value) > END_TO_END_ID_LENGTH_MAX or not value.isprintable():
        raise StatusFileRefused(
            f"end-to-end id {value[:END_TO_END_ID_LENGTH_MAX]!r}: needs at most {END_TO_END_ID_LENGTH_MAX}"
            " printable characters",
            line=line,
            record=record,
        )
    return value
