"""The lines of a sent batch are the same each time."""

from decimal import Decimal

import pytest
from sqlalchemy import Connection

from buffer_pipeline.errors import NotFound, PayoutRefused
from buffer_pipeline.payouts import approve_payout_batch, lines, payout_lines
from buffer_pipeline_tests.support.builders import PAYEE
from buffer_pipeline_tests.support.payouts import (
    APPROVER,
    DAY_3,
    HOLDER,
    IBAN,
    IDS,
    make_batch,
    mark,
    payable,
    request,
    said,
    send_batch,
    to_iban,
)


def test_lines_are_by_id_and_stay(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page, whatever the bank says and wherever the owner is paid from now on."""
    monkeypatch.setattr(lines, "_LINES_PER_PAGE", 2)
    payable(connection)
    ids = [request(connection, amount=f"{number}.05").payout_id for number in range(1, 6)]
    batch = send_batch(connection)

    first = list(payout_lines(connection, payout_batch_id=batch.payout_batch_id))
    mark(connection, batch, said(ids[0]), said(ids[1], "RETURNED"))
    to_iban(connection, account="GB29NWBK60161331926819")

    assert [line.payout_id for line in first] == ids
    assert (first[0].end_to_end_id, first[0].amount, first[0].currency) == (
        IDS.of_payout(ids[0]),
        Decimal("1.05"),
        "PHP",
    )
    assert {(line.owner, line.method, line.account, line.holder_name) for line in first} == {
        (PAYEE, "IBAN", IBAN, HOLDER)
    }
    assert IBAN not in repr(first)
    assert HOLDER not in repr(first)
    assert list(payout_lines(connection, payout_batch_id=batch.payout_batch_id)) == first


@pytest.mark.parametrize("state", ["MADE", "APPROVED"])
def test_batch_that_is_not_sent_has_no_lines(connection: Connection, state: str) -> None:
    """A payout of it could still be cancelled, and would be paid by the file all the same."""
    payable(connection)
    request(connection)
    batch = make_batch(connection)
    if state == "APPROVED":
        approve_payout_batch(connection, payout_batch_id=batch.payout_batch_id, by=APPROVER, now=DAY_3)

    with pytest.raises(PayoutRefused, match=f"is {state}; only a SENT one has lines") as refused:
        payout_lines(connection, payout_batch_id=batch.payout_batch_id)

    assert (refused.value.payout_batch_id, refused.value.state) == (batch.payout_batch_id, state)


def test_unknown_batch_has_no_lines(connection: Connection) -> None:
    """By its id."""
    with pytest.raises(NotFound, match="payout batch 99: does not exist"):
        payout_lines(connection, payout_batch_id=99)
