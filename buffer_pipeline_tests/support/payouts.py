"""Payouts for tests: a balance, a destination, and a payout in any state, by the verbs."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Final, Literal

from sqlalchemy import Connection, select

from buffer_pipeline.payouts import (
    BankIds,
    MarkedPayouts,
    Payout,
    PayoutBatch,
    PayoutMethod,
    PayoutResult,
    PayoutState,
    RestOfBatch,
    approve_payout_batch,
    cancel_payout,
    make_payout_batch,
    mark_payouts,
    request_payout,
    send_payout_batch,
    set_destination,
)
from buffer_pipeline.tables import payout, transaction
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYEE
from buffer_pipeline_tests.support.databases import BOOKS_NUMBER

IBAN: Final = "DE89370400440532013000"
HOLDER: Final = "Zoë & Søn"
"""The name on the account, as its holder writes it."""
IDS: Final = BankIds(books_number=BOOKS_NUMBER)
MASKED: Final = "DE****3000"
MAKER: Final = "finance-1"
APPROVER: Final = "finance-2"
DAY_3: Final = NOON + timedelta(days=3)
"""When a destination that was set at NOON is old enough."""

_NUMBERS: Final = count(1)


def give(connection: Connection, owner: str = PAYEE, amount: str = "1000.00", currency: str = "PHP") -> None:
    """Put money in a balance."""
    reference = f"given-{next(_NUMBERS)}"
    deposit(connection, owner=owner, amount=amount, currency=currency, reference=reference, now=NOON)


def to_iban(connection: Connection, owner: str = PAYEE, account: str = IBAN, now: datetime = NOON) -> None:
    """Set an owner's destination."""
    set_destination(
        connection,
        owner=owner,
        method=PayoutMethod.IBAN,
        account=account,
        holder_name=HOLDER,
        by=ADMIN,
        reason="new",
        now=now,
    )


def payable(
    connection: Connection, owner: str = PAYEE, amount: str = "1000.00", currency: str = "PHP"
) -> None:
    """Give an owner a balance and a destination."""
    give(connection, owner, amount, currency)
    to_iban(connection, owner)


def request(connection: Connection, owner: str = PAYEE, **changes: Any) -> Payout:
    """Request a payout of 100 pesos, with some arguments changed."""
    asked = {"owner": owner, "currency": "PHP", "amount": "100.00", "by": owner, "now": NOON}
    if "reference" not in changes:
        changes["reference"] = f"payout-{next(_NUMBERS)}"
    if changes.get("everything"):
        asked["amount"] = None
    return request_payout(connection, **{**asked, **changes})


def make_batch(connection: Connection, **changes: Any) -> PayoutBatch:
    """Make a batch of what is requested in pesos."""
    return make_payout_batch(connection, **{"currency": "PHP", "by": MAKER, "now": DAY_3, **changes})


def send_batch(connection: Connection, batch: PayoutBatch | None = None) -> PayoutBatch:
    """Approve a batch as somebody else, and send it."""
    id_ = (batch or make_batch(connection)).payout_batch_id
    approve_payout_batch(connection, payout_batch_id=id_, by=APPROVER, now=DAY_3)
    return send_payout_batch(connection, payout_batch_id=id_, by=MAKER, now=DAY_3)


def said(
    payout_id: int,
    outcome: Literal["PAID", "RETURNED"] = "PAID",
    reason: str | None = None,
    **changes: Any,
) -> PayoutResult:
    """Return what a bank says of a payout, without its amount."""
    if outcome == "RETURNED" and reason is None:
        reason = "AC04 account closed"
    return PayoutResult(end_to_end_id=IDS.of_payout(payout_id), outcome=outcome, reason=reason, **changes)


def mark(
    connection: Connection, batch: PayoutBatch, *results: PayoutResult | RestOfBatch, **changes: Any
) -> MarkedPayouts:
    """Mark payouts as a file of its own says."""
    given: Iterable[PayoutResult | RestOfBatch] = results
    digest = next(_NUMBERS).to_bytes(32, "big")
    arguments = {
        "payout_batch_id": batch.payout_batch_id,
        "results": given,
        "by": MAKER,
        "file_digest": digest,
        "now": DAY_3,
    }
    return mark_payouts(connection, **{**arguments, **changes})


def place_payout(
    connection: Connection, state: PayoutState = PayoutState.REQUESTED, owner: str = PAYEE
) -> int:
    """Bring a payout of 100 of 1000 pesos to a state by the verbs; return its id."""
    payable(connection, owner)
    payout_id = request(connection, owner).payout_id
    if state is PayoutState.CANCELLED:
        cancel_payout(connection, payout_id=payout_id, by=ADMIN, reason="asked", now=DAY_3)
    if state in {PayoutState.REQUESTED, PayoutState.CANCELLED}:
        return payout_id
    batch = make_batch(connection)
    if state is not PayoutState.BATCHED:
        send_batch(connection, batch)
    if state in {PayoutState.PAID, PayoutState.RETURNED}:
        mark(connection, batch, said(payout_id, "PAID" if state is PayoutState.PAID else "RETURNED"))
    return payout_id


def state_of_payout(connection: Connection, payout_id: int) -> str | None:
    """Return the state of a payout."""
    return connection.scalar(select(payout.c.state).where(payout.c.payout_id == payout_id))


def lines_of(connection: Connection, payout_id: int) -> list[tuple[str, str, str, int, int | None]]:
    """Return a payout's transactions: type, accounts, amount and balance after."""
    line = transaction.c
    rows = connection.execute(
        select(line.type, line.from_account, line.to_account, line.amount_minor, line.balance_after_minor)
        .where(line.payout_id == payout_id)
        .order_by(line.transaction_id)
    )
    return [tuple(row) for row in rows]
