"""Batches of payouts to write as files."""

import io
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

from buffer_pipeline.payouts.files.debtor import Debtor
from buffer_pipeline.payouts.files.export import BatchHeader, write_payouts
from buffer_pipeline.payouts.lines import PayoutLine

DEBTOR: Final = Debtor(name="shop", iban="DE89 3704 0044 0532 0130 00", bic="COBADEFFXXX")
ACCOUNT: Final = "FR1420041010050500013M02606"
BATCH: Final = 7
MESSAGE: Final = "batch-7"


def payout_line(payout_id: int = 41, **changes: Any) -> PayoutLine:
    """Return one payout of 10.50 EUR, or with other facts."""
    facts = {
        "payout_id": payout_id,
        "end_to_end_id": f"payout-{payout_id}",
        "owner": f"worker-{payout_id}",
        "method": "IBAN",
        "account": ACCOUNT,
        "holder_name": f"Holder {payout_id}",
        "amount": Decimal("10.50"),
        "currency": "EUR",
    }
    return PayoutLine(**{**facts, **changes})


def header(*lines: PayoutLine, **changes: Any) -> BatchHeader:
    """Return the header of a batch with these payouts, or with other facts."""
    facts = {
        "batch_id": BATCH,
        "message_id": MESSAGE,
        "currency": lines[0].currency if lines else "EUR",
        "created_at": datetime(2026, 3, 2, 12, tzinfo=UTC),
        "execution_date": date(2026, 3, 3),
        "payouts": len(lines),
        # Not added up if the caller has a sum: one of the amounts may not be a number.
        "total": changes["total"] if "total" in changes else sum((line.amount for line in lines), Decimal(0)),
        "debtor": DEBTOR,
    }
    return BatchHeader(**{**facts, **changes})


def written(format_name: str, *lines: PayoutLine, **changes: Any) -> bytes:
    """Return a batch as a file."""
    file = io.BytesIO()
    write_payouts(format_name, header(*lines, **changes), iter(lines), file)
    return file.getvalue()


def many_lines(number: int) -> Iterator[PayoutLine]:
    """Yield payouts of 10.50 EUR each, one at a time."""
    return (payout_line(payout_id) for payout_id in range(1, number + 1))


def many_header(number: int) -> BatchHeader:
    """Return the header of `many_lines`."""
    return header(payouts=number, total=Decimal("10.50") * number)
