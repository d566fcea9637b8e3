"""A rejection takes back what the bank has not taken; it never takes back what is paid."""

from dataclasses import replace

import pytest
from sqlalchemy import Connection

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.payouts import MarkedPayouts, PayoutBatch, RestOfBatch, payout_status_files
from buffer_pipeline_tests.support.builders import PAYEE, Wallet, wallet_of
from buffer_pipeline_tests.support.payouts import (
    IDS,
    mark,
    payable,
    request,
    said,
    send_batch,
    state_of_payout,
)


@pytest.fixture
def sent(connection: Connection) -> tuple[PayoutBatch, list[int]]:
    """A sent batch of two payouts of 10 and 20."""
    payable(connection)
    ids = [request(connection, amount=amount).payout_id for amount in ("10.00", "20.00")]
    return send_batch(connection), ids


def test_rejected_line_of_a_paid_payout_is_conflicting(
    connection: Connection, sent: tuple[PayoutBatch, list[int]]
) -> None:
    """The second upload of a file is rejected. What is paid stays so, and the other one comes back."""
    batch, ids = sent
    mark(connection, batch, said(ids[0]))

    rejected = [replace(said(id_, "RETURNED", "FF01 invalid file"), rejected=True) for id_ in ids]
    done = mark(connection, batch, *rejected)

    assert done == MarkedPayouts(paid=0, returned=1, unknown=(), conflicting=(IDS.of_payout(ids[0]),))
    stored = payout_status_files(connection, payout_batch_id=batch.payout_batch_id)
    assert [(each.returned, each.conflicting) for each in stored if each.returned] == [(1, done.conflicting)]
    assert [state_of_payout(connection, id_) for id_ in ids] == ["PAID", "RETURNED"]
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=99_000)
    assert reconcile(connection) == []


def test_rejection_of_a_batch_takes_back_no_paid_payout(
    connection: Connection, sent: tuple[PayoutBatch, list[int]]
) -> None:
    """A rejection of all payouts together says it of each of them."""
    batch, ids = sent
    mark(connection, batch, said(ids[0]))

    done = mark(connection, batch, RestOfBatch(outcome="RETURNED", reason="FF01 invalid file"))

    assert done == MarkedPayouts(paid=0, returned=1, unknown=(), conflicting=(IDS.of_payout(ids[0]),))
    assert [state_of_payout(connection, id_) for id_ in ids] == ["PAID", "RETURNED"]
    assert reconcile(connection) == []


def test_payout_that_one_file_has_as_paid_and_then_rejected_is_paid(
    connection: Connection, sent: tuple[PayoutBatch, list[int]]
) -> None:
    """And conflicting, so that a person asks the bank."""
    batch, ids = sent

    done = mark(connection, batch, said(ids[0]), replace(said(ids[0], "RETURNED"), rejected=True))

    assert done == MarkedPayouts(paid=1, returned=0, unknown=(), conflicting=(IDS.of_payout(ids[0]),))
    assert state_of_payout(connection, ids[0]) == "PAID"


def test_nothing_is_marked_if_no_line_is_final(
    connection: Connection, sent: tuple[PayoutBatch, list[int]]
) -> None:
    """Each payment is a duplicate, and the group is rejected: there are no others that this could mean."""
    batch, ids = sent
    named = frozenset(map(IDS.of_payout, ids))

    done = mark(connection, batch, RestOfBatch(outcome="RETURNED", named=named, payouts=2))

    assert done == MarkedPayouts(paid=0, returned=0, unknown=())
    assert [state_of_payout(connection, id_) for id_ in ids] == ["SENT", "SENT"]
