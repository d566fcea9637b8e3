"""A line of a status file is of its own books and of its own amount, or of all that no line names."""

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.errors import InvalidInput, PayoutRefused
from buffer_pipeline.payouts import (
    BankIds,
    MarkedPayouts,
    PayoutBatch,
    PayoutResult,
    RestOfBatch,
    bank_ids,
    payout_status_files,
)
from buffer_pipeline_tests.support.builders import PAYEE, Wallet, books, wallet_of
from buffer_pipeline_tests.support.payouts import (
    IDS,
    mark,
    payable,
    request,
    said,
    send_batch,
    state_of_payout,
)

OTHER = "worker-18"


@pytest.fixture
def sent(connection: Connection) -> tuple[PayoutBatch, list[int]]:
    """A sent batch: two payouts of PAYEE, and one of OTHER between them."""
    payable(connection)
    payable(connection, OTHER)
    ids = [request(connection, owner, amount=amount).payout_id for owner, amount in (
        (PAYEE, "100.00"), (OTHER, "70.00"), (PAYEE, "30.00")
    )]  # fmt: skip
    return send_batch(connection), ids


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": Decimal("99.99")},
        {"amount": Decimal("100.001")},
        {"amount": Decimal("10000")},
        {"currency": "EUR"},
        {"amount": Decimal("100.00"), "currency": "USD"},
    ],
)
@pytest.mark.parametrize("outcome", ["PAID", "RETURNED"])
def test_another_amount_is_reported_and_the_rest_is_marked(
    connection: Connection, sent: tuple[PayoutBatch, list[int]], outcome: Any, changes: dict[str, Any]
) -> None:
    """A bank that kept its charges, or paid something else: nothing is changed for that payout."""
    batch, ids = sent
    right = said(ids[1], amount=Decimal("70.0"), currency="PHP")

    done = mark(connection, batch, said(ids[0], outcome, **changes), right)

    assert done == MarkedPayouts(paid=1, returned=0, unknown=(), differing=(IDS.of_payout(ids[0]),))
    assert [state_of_payout(connection, id_) for id_ in ids] == ["SENT", "PAID", "SENT"]
    (stored,) = payout_status_files(connection, payout_batch_id=batch.payout_batch_id)
    assert (stored.unknown, stored.differing, stored.conflicting) == ((), done.differing, ())
    assert reconcile(connection) == []


def test_a_return_of_less_does_not_hide_the_payment(
    connection: Connection, sent: tuple[PayoutBatch, list[int]]
) -> None:
    """Both are reported together, as one of them is wrong."""
    batch, ids = sent
    lines = (
        said(ids[0], amount=Decimal(100)),
        said(ids[0], "RETURNED", amount=Decimal("97.50"), unordered=True),
    )

    done = mark(connection, batch, *lines)

    assert (done.paid, done.returned, done.differing) == (0, 0, (IDS.of_payout(ids[0]),))
    assert state_of_payout(connection, ids[0]) == "SENT"


@pytest.mark.parametrize(("outcome", "balance"), [("PAID", 87_000), ("RETURNED", 90_000)])
def test_the_rest_of_a_batch_is_what_no_line_names(
    connection: Connection, sent: tuple[PayoutBatch, list[int]], outcome: Any, balance: int
) -> None:
    """A bank's status of the whole file; not of what has a status of its own that is not final."""
    batch, ids = sent
    elsewhere = request(connection, OTHER).payout_id
    rest = RestOfBatch(
        outcome=outcome, reason="FF01", named=frozenset({IDS.of_payout(ids[0]), "other"}), payouts=3
    )

    done = mark(connection, batch, rest, said(ids[1]))

    ended = {"PAID": (2, 0), "RETURNED": (1, 1)}[outcome]
    assert (done.paid, done.returned, done.unknown) == (*ended, ())
    assert [state_of_payout(connection, id_) for id_ in ids] == ["SENT", "PAID", outcome]
    assert state_of_payout(connection, elsewhere) == "REQUESTED"
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=balance)
    assert reconcile(connection) == []


@pytest.mark.parametrize(
    ("rest", "refusal", "message"),
    [
        ([RestOfBatch(outcome="PAID", payouts=4)], PayoutRefused, "has 3 payouts; the file speaks of 4"),
        ([RestOfBatch(outcome="LOST")], InvalidInput, "is not PAID or RETURNED"),
        ([RestOfBatch(outcome="PAID")] * 2, InvalidInput, "two results of the rest"),
    ],
)
def test_a_wrong_rest_is_refused(
    connection: Connection,
    sent: tuple[PayoutBatch, list[int]],
    rest: list[RestOfBatch],
    refusal: type[Exception],
    message: str,
) -> None:
    """Nothing is written."""
    before = books(connection)

    with pytest.raises(refusal, match=message):
        mark(connection, sent[0], *rest)

    assert books(connection) == before


def test_ids_of_other_books_are_unknown(connection: Connection, sent: tuple[PayoutBatch, list[int]]) -> None:
    """Two marketplaces at one bank, or two sets of books of one, have payouts of the same number."""
    batch, ids = sent
    others = BankIds(books_number=IDS.books_number + 1)

    with pytest.raises(PayoutRefused, match="no line of the file is a payout of it"):
        mark(connection, batch, PayoutResult(end_to_end_id=others.of_payout(ids[0]), outcome="PAID"))

    assert bank_ids(connection) == IDS


@pytest.mark.parametrize(
    "text", ["", "{}", "{}01", "{}0", "{}-1", "{}1 ", "{}٣", "{}9223372036854775808", "{}" + "9" * 5000,
             "PAYOUT-1", "PAYOUT-48210398-1", "payout-48210397-1", "BATCH-48210397-1"],
)  # fmt: skip
def test_ids_that_are_none_of_ours(text: str) -> None:
    """Only what these books write is read, and not what other books at the same bank write."""
    assert IDS.payout_of(text.format("PAYOUT-48210397-")) is None
    assert IDS.payout_of(IDS.of_payout(2**63 - 1)) == 2**63 - 1
    assert len(IDS.of_payout(2**63 - 1)) == 35
    assert len(IDS.of_batch(2**63 - 1)) == 34
