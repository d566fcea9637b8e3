"""A refund by the id of an earning's own hold takes from all of its unsettled shares."""

from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.errors import (
    ReferenceConflict,
)
from buffer_pipeline.freeze import unfreeze_hold
from buffer_pipeline.hold import HoldState
from buffer_pipeline.notifications.contact import change_contact
from buffer_pipeline.refund import Refund
from buffer_pipeline.release import release_matured
from buffer_pipeline.tables import batch, notification, transaction
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    NOON,
    PAYEE,
    PAYER,
    WITH_A_FEE,
    Wallet,
    all_at_once,
    books,
    notifications_of,
    open_freezes,
    place_hold,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.support.earnings import HALF_A_FEE
from buffer_pipeline_tests.support.refunds import freeze_for_risk, place_frozen, refund, refunded
from buffer_pipeline_tests.support.rules import shares_of


def lines_of(connection: Connection) -> list[dict[str, Any]]:
    """Return the refunds, oldest first."""
    return [
        dict(row)
        for row in connection.execute(
            select(transaction).where(transaction.c.type == "REFUND").order_by(transaction.c.transaction_id)
        ).mappings()
    ]


def test_a_refund_of_an_earning_takes_all_of_its_shares(connection: Connection) -> None:
    """The payer gets the whole earning, all shares are settled and all freezes closed."""
    shares = place_frozen(connection)

    done = refund(connection, shares[0])

    assert done == Refund(
        transaction_id=done.transaction_id,
        hold_id=shares[0],
        amount_minor=100_000,
        left_minor=0,
        state=HoldState.REFUNDED,
        hold_ids=tuple(shares),
    )
    assert [state_of(connection, hold_id) for hold_id in shares] == ["REFUNDED"] * 3
    assert [open_freezes(connection, hold_id) for hold_id in shares] == [[]] * 3
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=100_000)
    assert wallet_of(connection, PAYEE) == wallet_of(connection, "platform") == Wallet()
    assert reconcile(connection) == []


def test_a_refund_of_an_earning_is_one_batch_with_one_reference(connection: Connection) -> None:
    """The first transaction has the reference. The payer's balance runs through them."""
    shares = place_frozen(connection)

    done = refund(connection, shares[0])

    lines = lines_of(connection)
    assert [(line["hold_id"], line["amount_minor"], line["reference"]) for line in lines] == [
        (shares[0], 78_000, "refund-1"),
        (shares[1], 12_000, None),
        (shares[2], 10_000, None),
    ]
    assert [line["balance_after_minor"] for line in lines] == [78_000, 90_000, 100_000]
    assert lines[0]["transaction_id"] == done.transaction_id
    (made,) = connection.execute(select(batch)).mappings().all()
    assert {line["batch_id"] for line in lines} == {made["batch_id"]}
    assert (made["kind"], made["source"], made["reason"]) == ("REFUND", ADMIN, "stolen card")
    assert (made["earning_id"], made["left_minor"]) == (shares[0], 0)


def test_a_part_of_an_earning_is_refunded_in_proportion(connection: Connection) -> None:
    """100.01 is split by largest remainder, and the rest stays frozen."""
    shares = place_frozen(connection)

    done = refund(connection, shares[0], amount="100.01")

    assert refunded(connection, *shares) == [7_801, 1_200, 1_000]
    assert (done.amount_minor, done.left_minor, done.state) == (10_001, 89_999, HoldState.FROZEN)
    assert [open_freezes(connection, hold_id) for hold_id in shares] == [["RISK"]] * 3
    rest = refund(connection, shares[0], reference="refund-2")
    assert (rest.amount_minor, rest.left_minor, rest.state) == (89_999, 0, HoldState.REFUNDED)
    assert reconcile(connection) == []


def test_a_small_part_is_taken_from_the_shares_that_it_reaches(connection: Connection) -> None:
    """One unit is the payee's; the others are untouched."""
    shares = place_frozen(connection)

    done = refund(connection, shares[0], amount="0.01")

    assert done.hold_ids == (shares[0],)
    assert refunded(connection, *shares) == [1, 0, 0]
    again = refund(connection, shares[0], amount="0.01")
    assert (again.hold_ids, again.amount_minor, again.left_minor) == ((shares[0],), 1, 99_999)


def test_a_share_is_refunded_by_its_own_id(connection: Connection) -> None:
    """The rest of the earning stays frozen by the same freeze."""
    first, fee, reserve = place_frozen(connection)

    done = refund(connection, fee)

    assert (done.hold_id, done.hold_ids, done.amount_minor, done.left_minor) == (fee, (fee,), 12_000, 0)
    assert refunded(connection, first, fee, reserve) == [0, 12_000, 0]
    assert connection.scalars(select(batch.c.earning_id)).all() == [None]
    assert state_of(connection, first) is HoldState.FROZEN


def test_a_refund_of_an_earning_takes_what_is_frozen_and_unsettled(connection: Connection) -> None:
    """After the payee has been paid, the frozen reserve is refunded by the earning's id."""
    first = place_hold(connection, shares=WITH_A_FEE)
    release_matured(connection, now=DAY_7, batch_limit=10)
    freeze_for_risk(connection, first)

    done = refund(connection, first, now=DAY_7)

    assert (done.amount_minor, done.left_minor, done.state) == (10_000, 0, HoldState.RELEASED)
    assert done.hold_ids == (shares_of(connection, first)["RESERVE"],)
    assert refund(connection, first, now=DAY_7).replayed
    assert reconcile(connection) == []


def test_a_refund_of_an_earning_notifies_payee_and_payer_once(connection: Connection) -> None:
    """The payer's message has the whole sum and the earning's own hold."""
    first = place_frozen(connection)[0]
    change_contact(connection, owner="platform", changes={"notify_of_shares": True}, now=NOON)

    refund(connection, first)

    notified = connection.execute(
        select(notification.c.hold_id, notification.c.amount_minor).where(notification.c.owner == PAYER)
    ).all()
    assert [tuple(row) for row in notified] == [(first, 100_000)]
    assert notifications_of(connection, PAYEE)[2:] == ["PAYMENT_REFUNDED"]
    assert notifications_of(connection, "platform") == ["PAYMENT_REFUNDED"]


def test_refund_of_only_the_reserve_notifies_the_payee(connection: Connection) -> None:
    """Although their own share waits."""
    _, _, reserve = place_frozen(connection)

    refund(connection, reserve)

    assert notifications_of(connection, PAYEE)[2:] == ["PAYMENT_REFUNDED"]


@pytest.mark.parametrize("amount", [None, "1000.00"])
def test_refund_of_an_earning_is_replayed(connection: Connection, amount: str | None) -> None:
    """With the whole amount given or omitted, the sum and the holds are those of the first call."""
    shares = place_frozen(connection)
    first = refund(connection, shares[0], amount=amount)
    before = books(connection)

    again = refund(connection, shares[0])

    assert (again.transaction_id, again.amount_minor, again.hold_ids, again.replayed) == (
        first.transaction_id,
        100_000,
        tuple(shares),
        True,
    )
    assert refund(connection, shares[0], amount="1000.00").replayed
    assert books(connection) == before


@pytest.mark.parametrize("changes", [{}, {"amount": "0.02"}, {"reason": "another"}])
def test_partial_refund_of_an_earning_is_not_replayed_as_a_whole_one(
    connection: Connection, changes: dict[str, str]
) -> None:
    """Without an amount the caller meant everything, although the only refunded hold is settled."""
    first = place_hold(connection, amount="0.02", shares=HALF_A_FEE)
    freeze_for_risk(connection, first)
    refund(connection, first, amount="0.01")
    assert refunded(connection, first) == [1]

    with pytest.raises(ReferenceConflict, match=rf"a REFUND of 0.01 PHP of hold {first}$"):
        refund(connection, first, **changes)


def test_a_reference_of_an_earning_is_not_that_of_its_share(connection: Connection) -> None:
    """Neither call is a replay of the other."""
    first, fee, _ = place_frozen(connection)
    refund(connection, first, reference="of-all", amount="0.01")
    refund(connection, fee, reference="of-fee", amount="0.01")

    with pytest.raises(ReferenceConflict):
        refund(connection, first, reference="of-fee", amount="0.01")
    with pytest.raises(ReferenceConflict):
        refund(connection, fee, reference="of-all", amount="0.01")


def test_one_of_concurrent_whole_refunds_of_an_earning_is_refused(engine: Engine) -> None:
    """They have different references."""
    with engine.begin() as connection:
        first = place_frozen(connection)[0]

    outcomes = all_at_once(
        engine,
        lambda connection: refund(connection, first, reference="one"),
        lambda connection: refund(connection, first, reference="two"),
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Refund", "StateRefused"]
    with engine.connect() as connection:
        assert wallet_of(connection, PAYER) == Wallet(balance_minor=100_000)
        assert reconcile(connection) == []


def test_closing_the_freeze_buffers_the_rest_of_a_partial_refund(connection: Connection) -> None:
    """Closing it returns all shares to the buffer with their rest."""
    shares = place_frozen(connection)
    freeze_id = connection.exec_driver_sql("SELECT min(freeze_id) FROM buffer.hold_freeze").scalar_one()
    refund(connection, shares[0], amount="500.00")

    unfreeze_hold(connection, freeze_id=freeze_id, by=ADMIN, reason="agreed", now=NOON)

    assert [state_of(connection, hold_id) for hold_id in shares] == ["BUFFERED"] * 3
    assert refunded(connection, *shares) == [39_000, 6_000, 5_000]
