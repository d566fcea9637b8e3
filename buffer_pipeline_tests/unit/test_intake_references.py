"""Rule 1: a replay returns the first hold; other content under its reference is refused."""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from buffer_pipeline.errors import InvalidInput, ReferenceConflict
from buffer_pipeline.hold import HoldState
from buffer_pipeline.intake import AddedHold, Earning, add_many_pending_earnings
from buffer_pipeline_tests.support.builders import (
    DAY_7,
    NOON,
    PAYEE,
    Wallet,
    all_at_once,
    books,
    hold_row,
    one_after_the_other,
    place_hold,
    release_date_of,
    row_counts,
    wallet_of,
)
from buffer_pipeline_tests.support.earnings import EARNING, Add, add, add_in_many, add_one


def test_replay_returns_the_first_hold_and_writes_nothing(connection: Connection) -> None:
    """At any later time."""
    first = add(connection, title="A logo")
    before = books(connection)

    again = add(connection, title="A logo", amount=Decimal(1000), now=NOON + timedelta(days=3))

    assert again.replayed
    assert (again.hold_id, again.reference) == (first.hold_id, "invoice-1")
    assert again.release_date == first.release_date
    assert books(connection) == before


def test_replay_returns_the_present_state_of_the_hold(connection: Connection) -> None:
    """After its release it returns the released hold."""
    hold_id = place_hold(connection, reference="invoice-1", state=HoldState.RELEASED)
    before = books(connection)

    again = add(connection)

    assert (again.hold_id, again.state, again.replayed) == (hold_id, HoldState.RELEASED, True)
    assert books(connection) == before


def test_replay_with_the_same_dates_is_a_replay(connection: Connection) -> None:
    """Given dates must match; default dates depend on the clock and are not compared."""
    dates = {"held_at": NOON, "release_date": DAY_7 + timedelta(hours=1)}
    first = add(connection, **dates)

    assert add(connection, **dates, now=DAY_7).hold_id == first.hold_id


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"amount": "1000.01"}, "amount 1000.00 PHP, not amount 1000.01 PHP"),
        ({"job": "job-9"}, "job 'job-8', not job 'job-9'"),
        ({"payee": "worker-18"}, "payee 'worker-17', not payee 'worker-18'"),
        ({"payer": "client-4"}, "payer 'client-3', not payer 'client-4'"),
        ({"currency": "USD"}, "currency 'PHP', not currency 'USD'"),
        ({"title": "A logo"}, "title '', not title 'A logo'"),
        (
            {"held_at": NOON + timedelta(hours=1)},
            "with held_at 2026-03-02T12:00:00+00:00, not held_at 2026-03-02T13:00:00+00:00",
        ),
        (
            {"release_date": DAY_7 + timedelta(hours=1)},
            "with release_date 2026-03-09T12:00:00+00:00, not release_date 2026-03-09T13:00:00+00:00",
        ),
    ],
)
def test_same_reference_with_other_content_is_refused(
    connection: Connection, change: dict[str, Any], fact: str
) -> None:
    """The refusal names the difference."""
    first = add(connection)
    before = books(connection)

    with pytest.raises(ReferenceConflict, match=re.escape(fact)) as refusal:
        add(connection, **change)

    assert f"hold {first.hold_id}" in str(refusal.value)
    assert books(connection) == before


def test_reference_twice_in_one_call_is_held_once(connection: Connection) -> None:
    """The first earning is added, the second is a replay."""
    first, second = add_many_pending_earnings(connection, [Earning(**EARNING), Earning(**EARNING)], now=NOON)

    assert isinstance(first, AddedHold)
    assert isinstance(second, AddedHold)
    assert (first.replayed, second.replayed) == (False, True)
    assert first.hold_id == second.hold_id
    assert wallet_of(connection, PAYEE).pending_earnings_minor == 100_000


def test_reference_twice_with_other_content_holds_the_first(connection: Connection) -> None:
    """Whichever is due earlier."""
    earnings = [
        Earning(**EARNING, release_date=DAY_7),
        Earning(**{**EARNING, "amount": "5000.00"}, release_date=DAY_7 - timedelta(days=1)),
    ]

    first, second = add_many_pending_earnings(connection, earnings, now=NOON)

    assert isinstance(first, AddedHold)
    assert isinstance(second, ReferenceConflict)
    assert hold_row(connection, first.hold_id)["amount_minor"] == 100_000
    assert release_date_of(connection, first.hold_id) == first.release_date == DAY_7


def test_same_reference_raced_is_held_once(engine: Engine) -> None:
    """Many threads that add the same earning get one hold."""
    outcomes = all_at_once(engine, *[add] * 6)

    added = [outcome for outcome in outcomes if isinstance(outcome, AddedHold)]
    assert len(added) == 6
    assert len({outcome.hold_id for outcome in added}) == 1
    assert sorted(outcome.replayed for outcome in added) == [False, *[True] * 5]
    with engine.connect() as connection:
        assert wallet_of(connection, PAYEE).pending_earnings_minor == 100_000
        assert row_counts(connection)["notification"] == 1


def test_replay_waits_for_a_concurrent_first_call(engine: Engine) -> None:
    """It then returns the first call's hold."""
    first, second = one_after_the_other(engine, add, add)

    assert isinstance(second, AddedHold)
    assert (second.hold_id, second.replayed) == (first.hold_id, True)


def test_other_content_raced_is_refused(engine: Engine) -> None:
    """The reference belongs to the call that commits first."""
    first, second = one_after_the_other(
        engine, add, lambda connection: add(connection, amount="5000.00", payee="worker-18")
    )

    assert isinstance(second, ReferenceConflict)
    with engine.connect() as connection:
        assert hold_row(connection, first.hold_id)["amount_minor"] == 100_000
        assert wallet_of(connection, "worker-18") == Wallet()
        assert row_counts(connection)["hold"] == 1


def test_rolled_back_reference_is_free_again(engine: Engine) -> None:
    """A call that waits for an add that rolls back adds the earning itself."""
    with engine.connect() as connection, connection.begin() as transaction:
        add(connection)
        transaction.rollback()

    with engine.begin() as connection:
        added = add(connection)

    assert not added.replayed


@pytest.mark.parametrize("add_it", [add_one, add_in_many])
def test_a_replay_after_the_release_date_is_a_replay(connection: Connection, add_it: Add) -> None:
    """A date that was given without `held_at` is in the past by then; a new earning with it is refused."""
    date, later = NOON + timedelta(days=1), NOON + timedelta(days=3)
    first = add_it(connection, release_date=date)

    again = add_it(connection, release_date=date, now=later)

    assert (again.hold_id, again.replayed) == (first.hold_id, True)
    with pytest.raises(InvalidInput, match="before held_at"):
        add_it(connection, release_date=date, now=later, reference="another")
