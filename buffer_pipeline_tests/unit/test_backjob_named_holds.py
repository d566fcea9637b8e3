"""Rule 6: an approval may name the holds to refund."""

from typing import Any

import pytest
from sqlalchemy import Connection

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.errors import InsufficientFunds, InvalidInput, NotFound
from buffer_pipeline.hold import HoldState
from buffer_pipeline_tests.support.builders import (
    PAYER,
    Wallet,
    books,
    notifications_of,
    place_hold,
    state_of,
    transactions_of,
    wallet_of,
)
from buffer_pipeline_tests.support.refunds import approve, freeze_for_risk, open_backjob, refunded


def test_an_approval_may_name_the_holds_that_it_refunds(connection: Connection) -> None:
    """They are refunded whole; the others are buffered on their dates."""
    first, second, third = (place_hold(connection, payee=f"worker-{number}") for number in range(3))
    backjob_id = open_backjob(connection)

    approved = approve(connection, backjob_id, hold_ids=[third, first])

    assert approved.hold_ids == (first, second, third)
    assert refunded(connection, first, second, third) == [100_000, 0, 100_000]
    assert state_of(connection, second) is HoldState.BUFFERED
    assert transactions_of(connection, second) == [("PENDING_EARNING", 100_000)]
    assert sorted(notifications_of(connection, "worker-1")[-2:]) == ["BACKJOB_APPROVED", "PAYMENT_RESUMED"]
    assert "PAYMENT_REFUNDED" not in notifications_of(connection, "worker-1")
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=200_000)
    assert reconcile(connection) == []


def test_an_amount_is_split_over_the_named_holds(connection: Connection) -> None:
    """In proportion to their amounts. Their rest is buffered as well."""
    first = place_hold(connection, amount="300.00")
    second = place_hold(connection, amount="500.00")
    third = place_hold(connection, amount="100.00")
    backjob_id = open_backjob(connection)

    approve(connection, backjob_id, hold_ids=(first, third), amount="200.00")

    assert refunded(connection, first, second, third) == [15_000, 0, 5_000]
    assert {state_of(connection, one) for one in (first, second, third)} == {HoldState.BUFFERED}
    assert reconcile(connection) == []


def test_an_amount_from_named_holds_of_one_currency(connection: Connection) -> None:
    """If a job has two currencies, the named holds determine which one is meant."""
    pesos = place_hold(connection)
    dollars = place_hold(connection, currency="USD", amount="20.00")
    backjob_id = open_backjob(connection)

    with pytest.raises(InvalidInput, match="its holds are in PHP and USD"):
        approve(connection, backjob_id, hold_ids=[pesos, dollars], amount="5.00")
    approve(connection, backjob_id, hold_ids=[dollars], amount="5.00")

    assert refunded(connection, pesos, dollars) == [0, 500]
    assert wallet_of(connection, PAYER, "USD") == Wallet(balance_minor=500)
    assert wallet_of(connection, PAYER) == Wallet()


def test_named_holds_of_two_currencies_are_refunded_whole(connection: Connection) -> None:
    """Without an amount, each in its own currency."""
    pesos = place_hold(connection)
    dollars = place_hold(connection, currency="USD", amount="20.00")
    yen = place_hold(connection, currency="JPY", amount="700")

    approve(connection, open_backjob(connection), hold_ids=[pesos, yen])

    assert refunded(connection, pesos, dollars, yen) == [100_000, 0, 700]
    assert reconcile(connection) == []


def test_an_amount_above_the_named_holds_is_refused(connection: Connection) -> None:
    """The others do not count."""
    first = place_hold(connection)
    place_hold(connection)
    backjob_id = open_backjob(connection)
    before = books(connection)

    with pytest.raises(InsufficientFunds) as refusal:
        approve(connection, backjob_id, hold_ids=[first], amount="1000.01")

    assert "1000.01 PHP is above the 1000.00" in str(refusal.value)
    assert refusal.value.backjob_id == backjob_id
    assert books(connection) == before


def test_a_hold_that_the_backjob_does_not_freeze_is_named(connection: Connection) -> None:
    """Another job's hold, or one settled before, is refused, and nothing is refunded."""
    settled = place_hold(connection, state=HoldState.RELEASED)
    own = place_hold(connection)
    stranger = place_hold(connection, job="job-9")
    backjob_id = open_backjob(connection)
    before = books(connection)

    for hold_id in (settled, stranger, 404):
        with pytest.raises(NotFound) as refusal:
            approve(connection, backjob_id, hold_ids=[own, hold_id])
        assert str(refusal.value) == f"backjob {backjob_id}: does not freeze hold {hold_id}"
        assert (refusal.value.backjob_id, refusal.value.hold_id) == (backjob_id, hold_id)

    assert books(connection) == before


@pytest.mark.parametrize(
    ("hold_ids", "message"),
    [([], "hold_ids names no hold"), (["1"], "hold"), ([1.0], "hold"), ([True], "hold")],
)
def test_approval_without_a_valid_hold_is_refused(
    connection: Connection, hold_ids: list[Any], message: str
) -> None:
    """An empty list, or an invalid id."""
    place_hold(connection)
    backjob_id = open_backjob(connection)
    before = books(connection)

    with pytest.raises(InvalidInput, match=message):
        approve(connection, backjob_id, hold_ids=hold_ids)

    assert books(connection) == before


def test_freeze_on_an_unnamed_hold_refuses_the_approval_too(connection: Connection) -> None:
    """An approval ends the backjob for all its holds, so none may have another freeze."""
    first = place_hold(connection)
    second = place_hold(connection)
    backjob_id = open_backjob(connection)
    other = freeze_for_risk(connection, second)
    before = books(connection)

    with pytest.raises(Exception, match="cannot be approved") as refusal:
        approve(connection, backjob_id, hold_ids=[first])

    assert getattr(refusal.value, "freeze_ids", None) == (other.freeze_id,)
    assert getattr(refusal.value, "hold_id", None) == second
    assert books(connection) == before
