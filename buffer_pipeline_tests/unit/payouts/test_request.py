"""A payout takes its money out of the balance at once, and gives it back if it is cancelled."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.errors import (
    InsufficientFunds,
    InvalidInput,
    NotFound,
    PayoutRefused,
    ReferenceConflict,
    Refused,
)
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.owner_freeze import freeze_owner
from buffer_pipeline.payouts import PayoutState, cancel_payout
from buffer_pipeline.policy import PayoutPolicy
from buffer_pipeline.tables import payout, payout_batch
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYEE, Wallet, books, wallet_of
from buffer_pipeline_tests.support.full_wallets import fill_wallet
from buffer_pipeline_tests.support.payouts import (
    DAY_3,
    give,
    lines_of,
    make_batch,
    payable,
    place_payout,
    request,
    state_of_payout,
    to_iban,
)


def test_money_goes_into_transit_at_once(connection: Connection) -> None:
    """The balance is lower in the same transaction, and the line has what was left."""
    payable(connection)

    asked = request(connection, amount="300.50")

    assert (asked.state, asked.amount_minor, asked.replayed) == (PayoutState.REQUESTED, 30_050, False)
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=69_950)
    assert lines_of(connection, asked.payout_id) == [("PAYOUT", "BALANCE", "TRANSIT", 30_050, 69_950)]
    assert reconcile(connection) == []


def test_all_of_a_balance_can_be_asked_for(connection: Connection) -> None:
    """Everything is what the balance is at that moment."""
    payable(connection, amount="812.34")

    asked = request(connection, everything=True)

    assert asked.amount_minor == 81_234
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=0)


def test_same_reference_acts_once(connection: Connection) -> None:
    """It returns the first payout with its state now, also when the balance is no longer enough."""
    payable(connection)
    first = request(connection, amount="900.00", reference="payday-1")
    before = books(connection)

    again = request(connection, amount="900.00", reference="payday-1")

    assert (again.payout_id, again.replayed) == (first.payout_id, True)
    assert books(connection) == before


def test_everything_replays_whatever_came_since(connection: Connection) -> None:
    """The same call for everything is the first payout, although the balance is another one now."""
    payable(connection)
    first = request(connection, everything=True, reference="payday-1")
    give(connection)

    again = request(connection, everything=True, reference="payday-1")

    assert (again.payout_id, again.amount_minor, again.replayed) == (first.payout_id, 100_000, True)
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=100_000)


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": "100.01"},
        {"everything": True},
        {"by": "somebody-else"},
        {"owner": "worker-18"},
        {"currency": "EUR"},
        {"override": True, "reason": "paid by hand"},
    ],
)
def test_reference_with_other_content_is_refused(connection: Connection, changes: dict[str, Any]) -> None:
    """A key stands for one payout. The refusal names it."""
    payable(connection)
    payable(connection, "worker-18")
    give(connection, currency="EUR")
    first = request(connection, reference="payday-1")
    before = books(connection)

    with pytest.raises(ReferenceConflict, match=rf"payout {first.payout_id} of 100\.00 PHP") as refused:
        request(connection, **{"by": PAYEE, "reference": "payday-1", **changes})

    assert refused.value.payout_id == first.payout_id
    assert books(connection) == before


@pytest.mark.parametrize(
    ("changes", "refusal", "message"),
    [
        ({"amount": "1000.01"}, InsufficientFunds, r"cannot pay out 1000\.01 PHP; its balance is 1000\.00"),
        ({"amount": "49.99"}, PayoutRefused, r"49\.99 PHP is below the minimum of a payout, 50\.00"),
        ({"amount": "0"}, InvalidInput, "must be above zero"),
        ({"amount": 10.5}, InvalidInput, "never a float"),
        ({"amount": None}, InvalidInput, "needs an amount, or everything"),
        ({"everything": True, "amount": "1"}, InvalidInput, "not both"),
        ({"currency": "JPY"}, NotFound, "in JPY: does not exist"),
        ({"currency": "EUR"}, NotFound, "in EUR: does not exist"),
        ({"override": True}, InvalidInput, "needs a reason"),
        ({"reason": "for fun"}, InvalidInput, "nothing else has one"),
        ({"reference": ""}, InvalidInput, "reference"),
        ({"by": ""}, InvalidInput, "by"),
    ],
)
def test_bad_request_is_refused_and_nothing_written(
    connection: Connection, changes: dict[str, Any], refusal: type[Refused], message: str
) -> None:
    """Each is refused by name."""
    payable(connection)
    give(connection, "worker-18", currency="EUR")
    before = books(connection)
    policy = PayoutPolicy(minimums={"PHP": "50.00"})

    with pytest.raises(refusal, match=message):
        request(connection, policy=policy, **changes)

    assert books(connection) == before


def test_minimum_itself_is_paid(connection: Connection) -> None:
    """Below it is refused, and it is not."""
    payable(connection)

    asked = request(connection, amount="50.00", policy=PayoutPolicy(minimums={"PHP": "50.00"}))

    assert asked.amount_minor == 5_000


def test_empty_balance_has_nothing_to_pay_out(connection: Connection) -> None:
    """Everything of nothing is refused."""
    payable(connection, amount="100.00")
    request(connection)

    with pytest.raises(InsufficientFunds, match=r"cannot pay out 0\.00 PHP; its balance is 0\.00"):
        request(connection, everything=True)


def test_owner_without_a_destination_is_refused(connection: Connection) -> None:
    """Also with an override: there is nowhere to send it."""
    give(connection)

    with pytest.raises(PayoutRefused, match="has no payout destination") as refused:
        request(connection)
    with pytest.raises(PayoutRefused, match="has no payout destination"):
        request(connection, override=True, reason="in a hurry")

    assert (refused.value.owner, refused.value.allowed) == (PAYEE, ("set_destination",))


def test_frozen_owner_gets_no_payout_unless_an_admin_says_so(connection: Connection) -> None:
    """The override has its reason in the books."""
    payable(connection)
    freeze_owner(connection, owner=PAYEE, kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=NOON)

    with pytest.raises(PayoutRefused, match="frozen, so nothing is paid out") as refused:
        request(connection)
    passed = request(connection, by=ADMIN, override=True, reason="agreed with the bank")

    assert (refused.value.owner, refused.value.state) == (PAYEE, "FROZEN")
    row = connection.execute(select(payout)).mappings().one()
    assert (row["payout_id"], row["requested_by"], row["override_reason"]) == (
        passed.payout_id,
        ADMIN,
        "agreed with the bank",
    )


def test_cancelled_payout_is_back_in_the_balance(connection: Connection) -> None:
    """To run it again changes nothing; somebody else is refused."""
    payable(connection)
    asked = request(connection)

    done = cancel_payout(connection, payout_id=asked.payout_id, by=PAYEE, reason="changed my mind", now=NOON)
    again = cancel_payout(connection, payout_id=asked.payout_id, by=PAYEE, reason="changed my mind", now=NOON)

    assert (done.state, done.replayed, again.replayed) == (PayoutState.CANCELLED, False, True)
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=100_000)
    assert lines_of(connection, asked.payout_id) == [
        ("PAYOUT", "BALANCE", "TRANSIT", 10_000, 90_000),
        ("PAYOUT_CANCELLED", "TRANSIT", "BALANCE", 10_000, 100_000),
    ]
    with pytest.raises(PayoutRefused, match="cannot cancel from CANCELLED") as refused:
        cancel_payout(connection, payout_id=asked.payout_id, by=ADMIN, reason="changed my mind", now=NOON)
    assert (refused.value.payout_id, refused.value.state) == (asked.payout_id, "CANCELLED")
    assert reconcile(connection) == []


def test_payout_leaves_its_batch_when_it_is_cancelled(connection: Connection) -> None:
    """The batch has the rest. Without a rest it is cancelled too, and keeps what it had."""
    payable(connection)
    first, second = request(connection), request(connection, amount="50.00")
    batch = make_batch(connection)

    cancel_payout(connection, payout_id=first.payout_id, by=PAYEE, reason="no", now=DAY_3)
    row = connection.execute(select(payout_batch)).mappings().one()
    assert (row["state"], row["payouts"], row["amount_minor"]) == ("MADE", 1, 5_000)
    cancel_payout(connection, payout_id=second.payout_id, by=PAYEE, reason="no", now=DAY_3)

    row = connection.execute(select(payout_batch)).mappings().one()
    assert (row["payout_batch_id"], row["state"], row["payouts"]) == (batch.payout_batch_id, "CANCELLED", 1)
    assert (row["cancelled_by"], row["cancellation_reason"]) == (PAYEE, "no")
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=100_000)
    assert reconcile(connection) == []


@pytest.mark.parametrize("state", [PayoutState.SENT, PayoutState.PAID, PayoutState.RETURNED])
def test_what_is_sent_cannot_be_cancelled(connection: Connection, state: PayoutState) -> None:
    """Its money may be at the bank."""
    payout_id = place_payout(connection, state)
    before = books(connection)

    with pytest.raises(PayoutRefused, match=f"cannot cancel from {state}; that needs REQUESTED or BATCHED"):
        cancel_payout(connection, payout_id=payout_id, by=ADMIN, reason="no", now=DAY_3)

    assert books(connection) == before
    assert state_of_payout(connection, payout_id) == state


def test_unknown_payout_is_refused(connection: Connection) -> None:
    """By its id."""
    with pytest.raises(NotFound, match="payout 7: does not exist") as refused:
        cancel_payout(connection, payout_id=7, by=ADMIN, reason="no", now=NOON)

    assert refused.value.payout_id == 7
    with pytest.raises(NotFound):
        cancel_payout(connection, payout_id=-1, by=ADMIN, reason="no", now=NOON)


def test_new_destination_does_not_stop_a_request(connection: Connection) -> None:
    """The payout waits for a batch instead."""
    give(connection)
    to_iban(connection, now=NOON - timedelta(minutes=1))

    assert request(connection).state == PayoutState.REQUESTED


def test_full_wallet_cannot_take_a_cancelled_payout(connection: Connection) -> None:
    """It is refused by name, and the payout stays."""
    fill_wallet(connection, PAYEE, capacity_minor=0)
    to_iban(connection)
    asked = request(connection)
    give(connection, amount="100.00")

    with pytest.raises(Refused, match="its wallet cannot take so much more"):
        cancel_payout(connection, payout_id=asked.payout_id, by=ADMIN, reason="no", now=NOON)

    assert state_of_payout(connection, asked.payout_id) == "REQUESTED"
