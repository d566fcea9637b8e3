"""Writes a batch of payouts as a file for a bank or a provider.

A new format is a file with a class like `CsvExport` and an entry point in the group
`buffer_pipeline.payout_exports`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Context, Decimal
from importlib.metadata import entry_points
from typing import IO, Final, Protocol

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.payouts.files.debtor import Debtor
from buffer_pipeline.payouts.lines import PayoutLine

ENTRY_POINTS: Final = "buffer_pipeline.payout_exports"

DIGITS_MAX: Final = 18
PLACES_MAX: Final = 5
"""Of an amount in ISO 20022. The amounts of the books are below that."""

# Sums are exact, whatever the context of the caller's Decimal is.
_EXACT: Final = Context(prec=60)


class PayoutFileRefused(InvalidInput):
    """A batch cannot be written in this format. What was written before this line is not a file to send.

    `payout_id` is the payout that the format cannot express; it is None if the batch itself is wrong.
    """

    def __init__(self, message: str, *, batch_id: int, payout_id: int | None = None) -> None:
        super().__init__(message, payout_id=payout_id)
        self.batch_id = batch_id


@dataclass(frozen=True, kw_only=True)
class BatchHeader:
    """What a file says about the whole batch. `total` is the sum of its `payouts` lines.

    `message_id` is the id of the file, which a bank repeats in its status file (`BankIds.of_batch`).
    """

    batch_id: int
    message_id: str
    currency: str
    created_at: datetime
    execution_date: date
    payouts: int
    total: Decimal
    debtor: Debtor


class PayoutExport(Protocol):
    """A format of a batch. The class of an entry point is called without arguments."""

    def write(self, header: BatchHeader, lines: Iterator[PayoutLine], file: IO[bytes]) -> None:
        """Write the batch. The same input gives the same bytes, and memory does not grow with the lines.

        Raises:
            PayoutFileRefused: the format cannot express a line.
            SettingError: the format names the debtor, and a setting of it is missing.
        """


def export_formats() -> tuple[str, ...]:
    """Return the names of the installed formats."""
    return tuple(sorted(point.name for point in entry_points(group=ENTRY_POINTS)))


def write_payouts(
    format_name: str, header: BatchHeader, lines: Iterable[PayoutLine], file: IO[bytes]
) -> None:
    """Write a batch in a format to a file that is open for bytes.

    Write to a temporary file and rename it, because the sums are known to be right only at the end.

    Raises:
        InvalidInput: there is no such format.
        PayoutFileRefused: a line is of another currency or not above zero, the lines do not add up to the
            header, or the format cannot express a line.
        SettingError: a setting of the debtor is missing or wrong.
        MissingExtra: the format needs the extra `payouts`.
    """
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if format_name not in points:
        raise InvalidInput(
            f"format {format_name!r}: cannot be written; there are {', '.join(sorted(points))}"
        )
    if not header.payouts:
        raise PayoutFileRefused(f"batch {header.batch_id}: has no payouts", batch_id=header.batch_id)
    if not _is_payable(header.total):
        raise PayoutFileRefused(
            f"batch {header.batch_id}: {header.total} in all; a file has at most {DIGITS_MAX} digits",
            batch_id=header.batch_id,
        )
    export: PayoutExport = points[format_name].load()()
    export.write(header, _checked(header, lines), file)


def _checked(header: BatchHeader, lines: Iterable[PayoutLine]) -> Iterator[PayoutLine]:
    """Yield the lines, and compare them with the header.

    Raises:
        PayoutFileRefused: a line or the sums are wrong.
    """
    count, total = 0, Decimal(0)
    for line in lines:
        if line.currency != header.currency or not _is_payable(line.amount):
            raise PayoutFileRefused(
                f"payout {line.payout_id}: {line.amount} {line.currency}; batch {header.batch_id} pays"
                f" amounts above zero in {header.currency}, with at most {DIGITS_MAX} digits, {PLACES_MAX} of"
                " them places",
                batch_id=header.batch_id,
                payout_id=line.payout_id,
            )
        count += 1
        total = _EXACT.add(total, line.amount)
        yield line
    if count != header.payouts or total != header.total:
        raise PayoutFileRefused(
            f"batch {header.batch_id}: {count} payouts of {total} {header.currency} were written; it has"
            f" {header.payouts} of {header.total}",
            batch_id=header.batch_id,
        )


def _is_payable(amount: Decimal) -> bool:
    """Return True if the amount is above zero and has no more digits than a bank takes."""
    if not amount.is_finite() or amount <= 0:
        return False
    digits, exponent = len(amount.as_tuple().digits), int(amount.as_tuple().exponent)
    places = max(-exponent, 0)
    return max(digits + max(exponent, 0), places + 1) <= DIGITS_MAX and places <= PLACES_MAX
