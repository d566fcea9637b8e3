"""The format `pain.002`: a bank's answer to a pain.001, with a status for each payment.

Versions pain.002.001.03 and pain.002.001.10. ACSC (settled) and ACCC (on the creditor's account) are paid,
RJCT (rejected) and CANC (cancelled) are returned: ExternalPaymentTransactionStatus1Code of ISO 20022. All
others, such as ACCP, ACSP and PDNG, say that the payment goes on.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from buffer_pipeline.payouts.files.iso20022.messages import Message, Part, read_parts
from buffer_pipeline.payouts.files.reasons import reason_text
from buffer_pipeline.payouts.files.status import DUPLICATE, StatusFileRefused, require_end_to_end_id
from buffer_pipeline.payouts.result import Outcome, PayoutResult, RestOfBatch

OUTCOMES: Final = {
    "ACSC": Outcome.PAID,
    "ACCC": Outcome.PAID,
    "RJCT": Outcome.RETURNED,
    "CANC": Outcome.RETURNED,
}
NO_STATUS: Final = "without status"
DUPLICATES: Final = frozenset({"AM05", "DUPL", "DU01", "DU02", "DU03", "DU04", "DU05"})
"""Reasons of a rejection that say that the bank has the same message or payment already."""

_GROUP: Final = "OrgnlGrpInfAndSts"
_PAYMENT: Final = "OrgnlPmtInfAndSts"
_PAYMENT_ID: Final = f"{_PAYMENT}/OrgnlPmtInfId"
_PAYMENT_STATUS: Final = f"{_PAYMENT}/PmtInfSts"
_PAYMENT_REASON: Final = f"{_PAYMENT}/StsRsnInf"
_TRANSACTION: Final = f"{_PAYMENT}/TxInfAndSts"

PAIN_002: Final = Message(
    name="pain.002",
    versions=("pain.002.001.03", "pain.002.001.10"),
    element="CstmrPmtStsRpt",
    parts=frozenset({_GROUP, _PAYMENT_ID, _PAYMENT_STATUS, _PAYMENT_REASON, _TRANSACTION}),
    ends=frozenset({_PAYMENT, ""}),
)

_CODE: Final = re.compile(r"[A-Z0-9]{1,4}")

_Reason = tuple[str | None, list[str]]
"""A reason's code, and the bank's texts beside it."""


class Pain002Statuses:
    """Reads the statuses of payments.

    A payment without a status of its own has that of its payment information block, or else of the group. So
    has each payment of the batch that the message does not name: a final status of all of them is a
    `RestOfBatch`, which comes last.
    """

    def read(
        self, file: BinaryIO, *, message_id: str | None, skipped: Counter[str]
    ) -> Iterator[PayoutResult | RestOfBatch]:
        """Yield the results.

        Raises:
            StatusFileRefused: not such a message, an answer to another message, a result without an id, or a
                final status for all payments together of a message or a block that is not known.
        """
        group, block, rest = _Status(), _Status(), None
        record, payouts, answers, block_id = 0, None, False, None
        named: set[str] = set()
        for part in read_parts(file, PAIN_002):
            if part.path == _GROUP:
                _require_answer(part, message_id)
                answers, payouts = True, _number(part, "OrgnlNbOfTxs")
                group = _Status(_code(part, "GrpSts"), _reason(part, "StsRsnInf/"))
            elif part.path == _PAYMENT_ID:
                block_id = part.text(".")
            elif part.path == _PAYMENT_STATUS:
                block = _Status(_code(part, "."), block.reason)
            elif part.path == _PAYMENT_REASON:
                block = _Status(block.code, _reason(part, "") or block.reason)
            elif part.path == _TRANSACTION:
                record += 1
                above = block.over(group)
                result = _result(part, above, record, skipped)
                if result is not None:
                    yield result
                elif above.code in OUTCOMES:
                    named.add(part.text("OrgnlEndToEndId") or "")
            elif part.path == _PAYMENT:
                if block.code is not None:
                    _require_ours(block, block_id, message_id, part.line)
                    rest = block.over(group)
                block, block_id = _Status(), None
            else:
                if not answers:
                    raise StatusFileRefused(f"has no {_GROUP}", line=part.line)
                _require_ours(group, message_id, message_id, part.line)
                yield from _rest(rest or group, frozenset(named), payouts, skipped)


@dataclass(frozen=True)
class _Status:
    """The status of a group or of a payment information block, which those below it have too."""

    code: str | None = None
    reason: _Reason | None = None

    def over(self, above: "_Status") -> "_Status":
        """Return this status, or the one above it if it has none."""
        if self.code is None:
            return _Status(above.code, self.reason or above.reason)
        return _Status(self.code, self.reason or (above.reason if self.code == above.code else None))


def _require_answer(part: Part, message_id: str | None) -> None:
    answered = part.text("OrgnlMsgId")
    if message_id is not None and answered != message_id:
        raise StatusFileRefused(f"answers message {str(answered)[:60]!r}, not {message_id!r}", line=part.line)


def _require_ours(status: _Status, id_: str | None, message_id: str | None, line: int) -> None:
    """Refuse a final status of all payments if it is not known which ones these are.

    The only block of an export has the same id as its message.
    """
    if status.code in OUTCOMES and (message_id is None or id_ != message_id):
        why = f" ({reason_text(*status.reason)})" if status.reason else ""
        raise StatusFileRefused(
            f"says {status.code}{why} of all payments of {str(id_)[:60]!r}, which is not the batch; import a"
            " csv that names them",
            line=line,
        )


def _rest(
    status: _Status, named: frozenset[str], payouts: int | None, skipped: Counter[str]
) -> Iterator[RestOfBatch]:
    """Yield what the message says of all payments that it does not name, if that is final."""
    if status.code not in OUTCOMES:
        return
    if _is_duplicate(status.code, status.reason):
        skipped[DUPLICATE] += 1
        return
    outcome = OUTCOMES[status.code]
    reason = reason_text(*(status.reason or (None, []))) if outcome is Outcome.RETURNED else None
    yield RestOfBatch(outcome=outcome, reason=reason, named=named, payouts=payouts)


def _result(part: Part, above: _Status, record: int, skipped: Counter[str]) -> PayoutResult | None:
    own = _code(part, "TxSts", record)
    code = own or above.code
    if code not in OUTCOMES:
        skipped[code or NO_STATUS] += 1
        return None
    # The reason above is one of a status above: it does not explain another one.
    reason = _reason(part, "StsRsnInf/") or (above.reason if code == above.code else None)
    if _is_duplicate(code, reason):
        skipped[DUPLICATE] += 1
        return None
    outcome = OUTCOMES[code]
    amount, currency = part.amount("OrgnlTxRef/Amt/InstdAmt", record=record) or (None, None)
    return PayoutResult(
        end_to_end_id=require_end_to_end_id(part.text("OrgnlEndToEndId"), line=part.line, record=record),
        outcome=outcome,
        reason=reason_text(*(reason or (None, []))) if outcome is Outcome.RETURNED else None,
        amount=amount,
        currency=currency,
        rejected=outcome is Outcome.RETURNED,
    )


def _is_duplicate(code: str, reason: _Reason | None) -> bool:
    return OUTCOMES[code] is Outcome.RETURNED and reason is not None and reason[0] in DUPLICATES


def _number(part: Part, path: str) -> int | None:
    text = part.text(path) or ""
    return int(text) if re.fullmatch("[0-9]{1,15}", text) else None


def _code(part: Part, path: str, record: int | None = None) -> str | None:
    code = part.text(path)
    if code is not None and not _CODE.fullmatch(code):
        raise StatusFileRefused(f"status {code[:60]!r}: not a code", line=part.line, record=record)
    return code


def _reason(part: Part, path: str) -> _Reason | None:
    """Return a reason's code and the bank's texts, or None if there are none.

    It is the first of several reasons, unless another one says that it is a duplicate.
    """
    codes = [*part.texts(f"{path}Rsn/Cd"), *part.texts(f"{path}Rsn/Prtry")]
    code = next((each for each in codes if each in DUPLICATES), codes[0] if codes else None)
    texts = part.texts(f"{path}AddtlInf")
    return (code, texts) if code or texts else None
