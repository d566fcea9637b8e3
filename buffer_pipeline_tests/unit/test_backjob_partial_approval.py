"""Rule 6: a smaller amount is split over the job's holds by largest remainder."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection

from buffer_pipeline.backjob import approve_backjob
from buffer_pipeline.errors import InsufficientFunds, InvalidInput
from buffer_pipeline.hold import BackjobState, HoldState
from buffer_pipeline.release import release_matured
from buffer_pipeline_tests.support.backjobs import decide, request
from buffer_pipeline_tests.support.builders import (
    DAY_7,
    NOON,
    PAYEE,
    PAYER,
    Wallet,
    books,
    hold_row,
    notifications_of,
    place_hold,
    state_of,
    transactions_of,
    wallet_of,
)

DAY = timedelta(days=1)


def test_partial_approval_is_split_by_largest_remainder(connection: Connection) -> None:
    """100.00 of three equal holds is 33.34, 33.33 and 33.33."""
    holds = [place_hold(connection, payee=f"worker-{number}", amount="50.00") for number in range(3)]
    opened = request(connection)

    decide(connection, approve_backjob, opened.backjob_id, amount="100.00")

    assert [hold_row(connection, hold_id)["refunded_minor"] for hold_id in holds] == [3334, 3333, 3333]
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=10_000)
    assert [wallet_of(connection, f"worker-{number}") for number in range(3)] == [
        Wallet(pending_earnings_minor=1666),
        Wallet(pending_earnings_minor=1667),
        Wallet(pending_earnings_minor=1667),
    ]


def test_rest_of_a_partial_approval_waits_on_its_own_date(connection: Connection) -> None:
    """It returns to the buffer without a cooldown and is released later."""
    hold_id = place_hold(connection)
    opened = request(connection)

    decide(connection, approve_backjob, opened.backjob_id, amount=Decimal("999.99"), now=NOON + DAY)

    row = hold_row(connection, hold_id)
    assert (row["state"], row["release_date"], row["settled_at"]) == ("BUFFERED", DAY_7, None)
    assert sorted(notifications_of(connection, PAYEE)[-3:]) == [
        "BACKJOB_APPROVED",
        "PAYMENT_REFUNDED",
        "PAYMENT_RESUMED",
    ]
    released = release_matured(connection, now=DAY_7, batch_limit=10)
    assert released.amounts_minor == {"PHP": 1}
    assert transactions_of(connection, hold_id) == [
        ("PENDING_EARNING", 100_000),
        ("REFUND", 99_999),
        ("EARNING", 1),
    ]


def test_partial_approval_of_all_is_a_whole_one(connection: Connection) -> None:
    """An amount of exactly what is held settles the hold."""
    hold_id = place_hold(connection)
    opened = request(connection)

    decide(connection, approve_backjob, opened.backjob_id, amount="1000")

    assert state_of(connection, hold_id) is HoldState.REFUNDED
    assert "PAYMENT_RESUMED" not in notifications_of(connection, PAYEE)


def test_share_of_nothing_writes_no_transaction(connection: Connection) -> None:
    """A centavo over two holds goes to one. The other is buffered without a refund of 0."""
    first = place_hold(connection)
    second = place_hold(connection)
    opened = request(connection)

    decide(connection, approve_backjob, opened.backjob_id, amount="0.01")

    assert transactions_of(connection, first) == [("PENDING_EARNING", 100_000), ("REFUND", 1)]
    assert transactions_of(connection, second) == [("PENDING_EARNING", 100_000)]
    assert [state_of(connection, one) for one in (first, second)] == [HoldState.BUFFERED] * 2


def test_small_hold_may_be_settled_by_a_partial_approval(connection: Connection) -> None:
    """If its part is everything that it holds. The others are buffered."""
    large = place_hold(connection, amount="1000.00")
    small = place_hold(connection, amount="0.01")
    opened = request(connection)

    decide(connection, approve_backjob, opened.backjob_id, amount="600.01")

    assert state_of(connection, small) is HoldState.REFUNDED
    assert state_of(connection, large) is HoldState.BUFFERED
    assert wallet_of(connection, PAYEE) == Wallet(pending_earnings_minor=40_000)


def test_second_partial_backjob_takes_from_the_rest(connection: Connection) -> None:
    """A hold may be refunded in parts, each by its own backjob."""
    hold_id = place_hold(connection)
    first = request(connection)
    decide(connection, approve_backjob, first.backjob_id, amount="600.00")
    second = request(connection)

    with pytest.raises(InsufficientFunds, match=r"400\.01 PHP is above the 400\.00"):
        decide(connection, approve_backjob, second.backjob_id, amount="400.01")
    decide(connection, approve_backjob, second.backjob_id, amount="300.00")
    decide(connection, approve_backjob, request(connection).backjob_id)

    assert transactions_of(connection, hold_id) == [
        ("PENDING_EARNING", 100_000),
        ("REFUND", 60_000),
        ("REFUND", 30_000),
        ("REFUND", 10_000),
    ]
    assert state_of(connection, hold_id) is HoldState.REFUNDED
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=100_000)
    assert wallet_of(connection, PAYEE) == Wallet()


def test_approval_above_what_is_held_is_refused(connection: Connection) -> None:
    """It is never clamped."""
    place_hold(connection)
    opened = request(connection)
    before = books(connection)

    with pytest.raises(InsufficientFunds, match=r"1000\.01 PHP is above the 1000\.00 that its holds hold$"):
        decide(connection, approve_backjob, opened.backjob_id, amount="1000.01")

    assert books(connection) == before


def test_partial_approval_over_currencies_is_refused(connection: Connection) -> None:
    """One amount cannot be split over pesos and dollars. The whole can be approved."""
    place_hold(connection)
    place_hold(connection, currency="USD")
    opened = request(connection)
    before = books(connection)

    with pytest.raises(InvalidInput) as refusal:
        decide(connection, approve_backjob, opened.backjob_id, amount="10.00")

    assert str(refusal.value) == (
        f"backjob {opened.backjob_id}: its holds are in PHP and USD;"
        " approve it whole, name holds of one currency, or reject it"
    )
    assert refusal.value.backjob_id == opened.backjob_id
    assert books(connection) == before
    assert decide(connection, approve_backjob, opened.backjob_id).state is BackjobState.APPROVED


@pytest.mark.parametrize("amount", ["0", "-1", "1.001", "ten", "NaN", 1.5, "10000000000000.01"])
def test_bad_amount_is_refused(connection: Connection, amount: Any) -> None:
    """A refund has the same limits as every amount."""
    place_hold(connection)
    opened = request(connection)
    before = books(connection)

    with pytest.raises(InvalidInput, match="amount"):
        decide(connection, approve_backjob, opened.backjob_id, amount=amount)

    assert books(connection) == before
