"""The format `camt.054`: a bank's notice of what was booked on the marketplace's account.

Versions camt.054.001.02, .04 and .08. A booked debit is a payout that was paid. A booked credit with return
information (RtrInf) is a payout that came back. Everything else is skipped and counted: other credits,
entries that are not booked yet, entries without details, and corrections (RvslInd).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import BinaryIO, Final

from buffer_pipeline.payouts.files.iso20022.messages import Message, Part, read_parts
from buffer_pipeline.payouts.files.reasons import reason_text
from buffer_pipeline.payouts.files.status import StatusFileRefused, require_end_to_end_id
from buffer_pipeline.payouts.result import Outcome, PayoutResult

BOOKED: Final = "BOOK"
DEBIT: Final = "DBIT"
CREDIT: Final = "CRDT"

NOT_BOOKED: Final = "not booked"
OTHER_CREDIT: Final = "other credit"
RETURN_OF_A_CREDIT: Final = "return of a credit"
CORRECTION: Final = "correction"
WITHOUT_DETAILS: Final = "without details"
WITHOUT_ID: Final = "without end-to-end id"

_ENTRY: Final = "Ntfctn/Ntry"
_AMOUNT: Final = f"{_ENTRY}/Amt"
_DIRECTION: Final = f"{_ENTRY}/CdtDbtInd"
_STATUS: Final = f"{_ENTRY}/Sts"
_CORRECTS: Final = f"{_ENTRY}/RvslInd"
_DETAILS: Final = f"{_ENTRY}/NtryDtls/TxDtls"

# Where a detail has the amount of its payment, what says it best first. Of what was paid, that is what was
# ordered. Of what came back, it is what was booked, which is less if a bank has kept its charges.
_PAID_AMOUNTS: Final = ("AmtDtls/InstdAmt/Amt", "Amt", "AmtDtls/TxAmt/Amt")
_RETURNED_AMOUNTS: Final = ("Amt", "AmtDtls/TxAmt/Amt", "AmtDtls/InstdAmt/Amt")

CAMT_054: Final = Message(
    name="camt.054",
    versions=("camt.054.001.02", "camt.054.001.04", "camt.054.001.08"),
    element="BkToCstmrDbtCdtNtfctn",
    parts=frozenset({_AMOUNT, _DIRECTION, _STATUS, _CORRECTS, _DETAILS}),
    ends=frozenset({_ENTRY}),
)


@dataclass(slots=True)
class _Entry:
    """What an entry says about all of its details, which come after it."""

    direction: str | None = None
    status: str | None = None
    corrects: bool = False
    amount: tuple[Decimal, str | None] | None = None
    details: int = 0
    first: PayoutResult | None = None
    """The result of the first detail, until it is known whether there are more. If it is the only one and has
    no amount, the entry's is its amount."""

    def take_first(self) -> Iterator[PayoutResult]:
        """Yield the first detail's result, if it was not yielded yet."""
        found, self.first = self.first, None
        if found is None:
            return
        if self.details == 1 and found.amount is None and self.amount is not None:
            found = replace(found, amount=self.amount[0], currency=self.amount[1])
        yield found


class Camt054Statuses:
    """Reads booked debits and returns."""

    def read(
        self,
        file: BinaryIO,
        *,
        message_id: str | None,  # noqa: ARG002 - a format's signature; a notice answers no message
        skipped: Counter[str],
    ) -> Iterator[PayoutResult]:
        """Yield the results. A notice may also have payments of other batches, whose ids are not known.

        Raises:
            StatusFileRefused: not such a message, or an entry without its direction or status.
        """
        entry, record = _Entry(), 0
        for part in read_parts(file, CAMT_054):
            if part.path == _AMOUNT:
                entry.amount = part.amount(".", record=record + 1)
            elif part.path == _DIRECTION:
                entry.direction = _direction(part, record + 1)
            elif part.path == _STATUS:
                entry.status = part.text(".") or part.text("Cd") or part.text("Prtry")
            elif part.path == _CORRECTS:
                entry.corrects = part.text(".") in {"true", "1"}
            elif part.path == _DETAILS:
                entry.details += 1
                record += 1
                result = _result(part, entry, record, skipped)
                if entry.details == 1:
                    entry.first = result
                else:
                    yield from entry.take_first()
                    if result is not None:
                        yield result
            else:
                yield from entry.take_first()
                if not entry.details:
                    skipped[WITHOUT_DETAILS] += 1
                entry = _Entry()


def _result(part: Part, entry: _Entry, record: int, skipped: Counter[str]) -> PayoutResult | None:
    if entry.direction is None or entry.status is None:
        raise StatusFileRefused("entry has details before CdtDbtInd and Sts", line=part.line, record=record)
    # From version 04 on, a detail has a direction of its own.
    own = part.text("CdtDbtInd")
    if own not in {None, DEBIT, CREDIT}:
        raise StatusFileRefused(f"CdtDbtInd {str(own)[:60]!r}: unknown", line=part.line, record=record)
    debit, returned = (own or entry.direction) == DEBIT, part.has("RtrInf")
    why = _why_skipped(entry, debit=debit, returned=returned)
    if why is None and part.text("Refs/EndToEndId") is None:
        why = WITHOUT_ID
    if why is not None:
        skipped[why] += 1
        return None
    end_to_end_id = require_end_to_end_id(part.text("Refs/EndToEndId"), line=part.line, record=record)
    paths = _RETURNED_AMOUNTS if returned else _PAID_AMOUNTS
    found = (part.amount(path, record=record) for path in paths)
    amount, currency = next((each for each in found if each is not None), (None, None))
    if not returned:
        return PayoutResult(
            end_to_end_id=end_to_end_id,
            outcome=Outcome.PAID,
            amount=amount,
            currency=currency,
            unordered=True,
        )
    code = part.text("RtrInf/Rsn/Cd") or part.text("RtrInf/Rsn/Prtry")
    return PayoutResult(
        end_to_end_id=end_to_end_id,
        outcome=Outcome.RETURNED,
        reason=reason_text(code, part.texts("RtrInf/AddtlInf")),
        amount=amount,
        currency=currency,
        unordered=True,
    )


def _why_skipped(entry: _Entry, *, debit: bool, returned: bool) -> str | None:
    """Return why a detail says nothing final about a payout, or None if it does."""
    if entry.status != BOOKED:
        return NOT_BOOKED
    if entry.corrects and not returned:
        return CORRECTION
    if debit == returned:
        return RETURN_OF_A_CREDIT if debit else OTHER_CREDIT
    return None


def _direction(part: Part, record: int) -> str:
    direction = part.text(".")
    if direction not in {DEBIT, CREDIT}:
        raise StatusFileRefused(f"CdtDbtInd {str(direction)[:60]!r}: unknown", line=part.line, record=record)
    return direction
