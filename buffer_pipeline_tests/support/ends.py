"""The end of a case of two verbs: all its rows, and a verb's result, without ids."""

import re
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, text

from buffer_pipeline.errors import PaymentBufferError

Answer: TypeAlias = tuple[Any, ...]

_NUMBERED: Final = (
    r"\b(earning|another|paid|before|job|worker|client|fees|taxes|in|out|back|part|taken|payout)-\d+"
)

LINES: Final = {
    "holds": "SELECT hold_status.job, hold_status.reference, hold_status.kind, state, amount_minor,"
    " refunded_minor, released_minor, release_date, settled_at FROM buffer.hold_status",
    "freezes": "SELECT hold.job, hold.reference, hold_freeze.kind, opened_by, hold_freeze.reason, opened_at,"
    " closed_by, closed_at FROM buffer.hold_freeze JOIN buffer.hold USING (hold_id)",
    "owners": "SELECT owner, kind, opened_by, reason, opened_at, holds_frozen, closed_by, closed_at,"
    " holds_resumed FROM buffer.owner_freeze",
    "frozen wallets": "SELECT owner, currency, owner_freeze_id IS NULL FROM buffer.wallet",
    "backjobs": "SELECT job, state, requested_at, decided_at, refunded_minor FROM buffer.backjob",
    "wallets": "SELECT owner, balance_minor, pending_earnings_minor, debt_minor FROM buffer.wallet",
    "transactions": "SELECT coalesce(payee.owner, payer.owner, ("
    "  SELECT owner FROM buffer.debt JOIN buffer.wallet USING (wallet_id)"
    "  WHERE debt.debt_id = transaction.debt_id"
    " )), payee.owner, payer.owner, type,"
    " transaction.amount_minor, balance_after_minor, from_balance_after_minor, hold.reference,"
    " transaction.reference, batch.kind,"
    " batch.reference,"
    " release_date, transaction.recorded_at"
    " FROM buffer.transaction"
    " LEFT JOIN buffer.wallet AS payee ON payee.wallet_id = from_wallet_id"
    " LEFT JOIN buffer.wallet AS payer ON payer.wallet_id = to_wallet_id"
    " LEFT JOIN buffer.hold USING (hold_id) LEFT JOIN buffer.batch USING (batch_id)",
    "debts": "SELECT debtor.owner, creditor.owner, amount_minor, outstanding_minor, opened_at, closed_at,"
    " forgiven_id IS NOT NULL FROM buffer.debt JOIN buffer.wallet AS debtor USING (wallet_id)"
    " LEFT JOIN buffer.wallet AS creditor ON creditor.wallet_id = creditor_wallet_id",
    "payouts": "SELECT owner, state, payout.amount_minor, whole_balance, payout.reference, requested_by,"
    " requested_at FROM buffer.payout JOIN buffer.wallet USING (wallet_id)",
    "audit lines": "SELECT hold.job, hold.reference, by, verb, audit_line.owner, reason, from_date, to_date,"
    " at FROM buffer.audit_line JOIN buffer.hold USING (hold_id)",
    "notifications": "SELECT owner, type, hold.reference, notification.amount_minor, left_minor,"
    " release_date, created_at FROM buffer.notification LEFT JOIN buffer.hold USING (hold_id)",
}
"""Everything that a verb can write, without ids, because a rollback uses some up. The first column has the
case's number.
"""


def ends_of(connection: Connection) -> dict[int, list[str]]:
    """Return the end of each case: every line of it, without its number."""
    ends: dict[int, list[str]] = {}
    for kind, statement in LINES.items():
        for row in connection.execute(text(statement)):
            ends.setdefault(number_in(row[0]), []).append(f"{kind} {_unnumbered(repr(tuple(row)))}")
    return {number: sorted(lines) for number, lines in ends.items()}


def number_in(name: str) -> int:
    """Return the number at the end of a name."""
    return int(name.rpartition("-")[2])


def _unnumbered(words: str) -> str:
    return re.sub(_NUMBERED, r"\1", words)


def as_answer(refusal: PaymentBufferError) -> Answer:
    """Return a refusal without the ids in it."""
    words = re.sub(r"\b(hold|backjob|freeze|transaction|debt) \d+", r"\1", str(refusal))
    return type(refusal).__name__, _unnumbered(words)
