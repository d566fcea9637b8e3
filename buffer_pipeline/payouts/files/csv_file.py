"""The format `csv`: a batch with one line per payout, and results with one line per payout.

Both are UTF-8 with a header. A field is written as it is: it is for programs, and a spreadsheet may take a
text that begins with `=` for a formula.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from typing import IO, BinaryIO, Final

from buffer_pipeline.csv_records import BrokenRecord, csv_records
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.inputs import require_text
from buffer_pipeline.payouts.files.export import BatchHeader, PayoutFileRefused
from buffer_pipeline.payouts.files.reasons import WORDS, reason_text
from buffer_pipeline.payouts.files.status import StatusFileRefused, amount_of, require_end_to_end_id
from buffer_pipeline.payouts.lines import PayoutLine
from buffer_pipeline.payouts.result import Outcome, PayoutResult

EXPORT_COLUMNS: Final = (
    "payout_id",
    "end_to_end_id",
    "owner",
    "method",
    "account",
    "holder_name",
    "amount",
    "currency",
)
STATUS_COLUMNS: Final = ("end_to_end_id", "outcome")
REASON_COLUMN: Final = "reason"
AMOUNT_COLUMN: Final = "amount"
CURRENCY_COLUMN: Final = "currency"
PENDING: Final = "PENDING"
"""The outcome of a payout that has not ended."""

LINE_BYTES_MAX: Final = 1_000_000


class CsvExport:
    """Writes a batch as CSV."""

    def write(self, header: BatchHeader, lines: Iterator[PayoutLine], file: IO[bytes]) -> None:
        """Write a header and a line per payout.

        Raises:
            PayoutFileRefused: a text has control characters.
        """
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
        try:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(EXPORT_COLUMNS)
            for line in lines:
                for name in ("end_to_end_id", "owner", "method", "account", "currency", "holder_name"):
                    _require(header, line, name)
                writer.writerow(
                    (
                        line.payout_id,
                        line.end_to_end_id,
                        line.owner,
                        line.method,
                        line.account,
                        line.holder_name or "",
                        f"{line.amount:f}",
                        line.currency,
                    )
                )
            text.flush()
        finally:
            # The file belongs to the caller. A wrapper that is thrown away would close it.
            text.detach()


def _require(header: BatchHeader, line: PayoutLine, name: str) -> None:
    value = getattr(line, name)
    if name == "holder_name" and value is None:
        return
    try:
        require_text(name, value)
    except InvalidInput as refusal:
        # An account and a name must not be shown.
        hidden = name in {"account", "holder_name"}
        fact = f"{name}: empty, too long, or with a control character" if hidden else refusal
        raise PayoutFileRefused(
            f"payout {line.payout_id}: {fact}", batch_id=header.batch_id, payout_id=line.payout_id
        ) from None


class CsvStatuses:
    """Reads results from CSV."""

    def read(
        self,
        file: BinaryIO,
        *,
        message_id: str | None,  # noqa: ARG002 - a format's signature; CSV does not name the batch
        skipped: Counter[str],
    ) -> Iterator[PayoutResult]:
        """Yield the results.

        The columns `end_to_end_id` and `outcome` are needed; `reason` and those of an export may be there. Of
        these, `amount` and `currency` are compared with the payout, unless they are empty.

        Raises:
            StatusFileRefused: another column, or a broken line.
        """
        columns: list[str] | None = None
        try:
            for number, (line, fields) in enumerate(csv_records(_lines(file))):
                if columns is None:
                    columns = _known_columns(fields)
                    continue
                if not fields:
                    continue
                if len(fields) != len(columns):
                    raise StatusFileRefused(
                        f"has {len(fields)} fields; the header has {len(columns)}", line=line, record=number
                    )
                found = dict(zip(columns, fields, strict=True))
                outcome = found["outcome"]
                end_to_end_id = require_end_to_end_id(found["end_to_end_id"], line=line, record=number)
                if outcome == PENDING:
                    skipped[PENDING] += 1
                    continue
                if outcome not in Outcome.__members__:
                    raise StatusFileRefused(
                        f"outcome {outcome[:60]!r}: is none of {', '.join((*Outcome, PENDING))}",
                        line=line,
                        record=number,
                    )
                returned = outcome == Outcome.RETURNED
                yield PayoutResult(
                    end_to_end_id=end_to_end_id,
                    outcome=Outcome(outcome),
                    reason=_reason(found.get(REASON_COLUMN, "")) if returned else None,
                    amount=amount_of(found.get(AMOUNT_COLUMN, "").strip(), line=line, record=number),
                    currency=found.get(CURRENCY_COLUMN, "").strip() or None,
                )
        except BrokenRecord as broken:
            raise StatusFileRefused(str(broken), line=broken.line) from None
        if columns is None:
            raise StatusFileRefused("is empty; the first line names the columns", line=1)


def _known_columns(fields: list[str]) -> list[str]:
    columns = [field.strip() for field in fields]
    for name in STATUS_COLUMNS:
        if columns.count(name) != 1:
            raise StatusFileRefused(f"needs the column {name} once", line=1)
    for name in columns:
        if name not in {*STATUS_COLUMNS, REASON_COLUMN, *EXPORT_COLUMNS} or columns.count(name) > 1:
            raise StatusFileRefused(f"column {name[:60]!r}: unknown, or there twice", line=1)
    return columns


def _reason(text: str) -> str:
    """Return the reason. A code alone gets its words."""
    code = text.strip()
    return reason_text(code) if code in WORDS else reason_text(None, [text])


def _lines(file: BinaryIO) -> Iterator[str]:
    """Yield the lines of a file as text.

    Raises:
        StatusFileRefused: a line is not UTF-8, or longer than any that is meant.
    """
    number = 0
    while line := file.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > LINE_BYTES_MAX:
            raise StatusFileRefused(f"is longer than {LINE_BYTES_MAX} bytes", line=number)
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise StatusFileRefused(f"is not UTF-8 at byte {error.start + 1}", line=number) from None
