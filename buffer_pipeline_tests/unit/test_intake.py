"""Rule 1: an earning is held, with its date, its transaction and its notification."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, select

from buffer_pipeline.hold import HoldState
from buffer_pipeline.hours import earliest_hour_in_progress
from buffer_pipeline.inputs import LATEST
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.policy import Policy
from buffer_pipeline.release import release_matured
from buffer_pipeline.tables import notification
from buffer_pipeline_tests.support.builders import (
    DAY_7,
    JOB,
    NOON,
    PAYEE,
    PAYER,
    Wallet,
    hold_row,
    notifications_of,
    release_date_of,
    row_counts,
    state_of,
    transactions_of,
    wallet_of,
)
from buffer_pipeline_tests.support.earnings import EARNING, add


def test_earning_is_held_with_its_transaction_and_notification(connection: Connection) -> None:
    """A new earning is pending and in the books, and its payee is notified."""
    added = add(connection, title="A logo")

    row = hold_row(connection, added.hold_id)
    assert (added.state, added.replayed, added.reference) == (HoldState.BUFFERED, False, "invoice-1")
    assert (row["job"], row["title"], row["amount_minor"], row["currency"]) == (JOB, "A logo", 100_000, "PHP")
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=0, pending_earnings_minor=100_000)
    assert wallet_of(connection, PAYER) == Wallet()
    assert transactions_of(connection, added.hold_id) == [("PENDING_EARNING", 100_000)]
    assert notifications_of(connection, PAYEE) == ["PAYMENT_PENDING"]
    assert notifications_of(connection, PAYER) == []


def test_notification_has_amount_and_release_date(connection: Connection) -> None:
    """PAYMENT_PENDING has the amount and the release date."""
    added = add(connection)

    notified = connection.execute(select(notification)).mappings().one()
    assert (notified["hold_id"], notified["amount_minor"], notified["currency"]) == (
        added.hold_id,
        100_000,
        "PHP",
    )
    assert (notified["release_date"], notified["created_at"], notified["dispatched_at"]) == (
        DAY_7,
        NOON,
        None,
    )


def test_release_date_is_seven_days_after_held_at(connection: Connection) -> None:
    """By default, to the second."""
    added = add(connection, held_at=NOON - timedelta(days=2))

    assert added.release_date == NOON + timedelta(days=5)
    assert release_date_of(connection, added.hold_id) == added.release_date


def test_hold_begins_at_now_when_no_other_time_is_given(connection: Connection) -> None:
    """Without held_at, it begins at `now`."""
    added = add(connection)

    assert hold_row(connection, added.hold_id)["held_at"] == NOON
    assert added.release_date == DAY_7


def test_zero_buffer_days_mean_zero(connection: Connection) -> None:
    """With buffer_days 0 a hold is due at once."""
    added = add(connection, policy=Policy(buffer_days=0))

    assert added.release_date == NOON
    assert release_matured(connection, now=NOON, batch_limit=10).holds_released == 1
    assert state_of(connection, added.hold_id) is HoldState.RELEASED


def test_given_release_date_overrides_the_policy(connection: Connection) -> None:
    """In any time zone, and as early as held_at."""
    manila = timezone(timedelta(hours=8))
    at_once = add(connection, reference="invoice-2", release_date=NOON)

    added = add(connection, release_date=datetime(2026, 3, 3, 20, tzinfo=manila))

    assert added.release_date == datetime(2026, 3, 3, 12, tzinfo=UTC)
    assert at_once.release_date == NOON


@pytest.mark.parametrize(
    ("amount", "currency", "amount_minor"),
    [("1250", "JPY", 1250), ("1.234", "KWD", 1234), (Decimal("0.01"), "PHP", 1), (5, "PHP", 500)],
)
def test_amount_is_held_in_its_currencys_minor_unit(
    connection: Connection, amount: Decimal | int | str, currency: str, amount_minor: int
) -> None:
    """Yen have no cents, Kuwaiti dinars a thousand fils."""
    added = add(connection, amount=amount, currency=currency)

    assert hold_row(connection, added.hold_id)["amount_minor"] == amount_minor
    assert wallet_of(connection, PAYEE, currency).pending_earnings_minor == amount_minor


def test_a_team_has_a_hold_each(connection: Connection) -> None:
    """A job may have holds of several payees and currencies."""
    add(connection)
    add(connection, reference="invoice-2", payee="worker-18", amount="300.00")
    add(connection, reference="invoice-3", amount="9.99", currency="USD")

    assert wallet_of(connection, PAYEE).pending_earnings_minor == 100_000
    assert wallet_of(connection, "worker-18").pending_earnings_minor == 30_000
    assert wallet_of(connection, PAYEE, "USD").pending_earnings_minor == 999
    assert row_counts(connection)["hold"] == 3


def test_replay_marks_no_hour(engine: Engine) -> None:
    """It writes nothing, so no count waits for it; the first call did."""
    with engine.connect() as watching:
        with engine.begin() as connection:
            add(connection)
            during_first = earliest_hour_in_progress(watching)
        with engine.begin() as connection:
            assert add(connection).replayed
            during_replay = earliest_hour_in_progress(watching)

    assert during_first == NOON
    assert during_replay is None or during_replay > LATEST


def test_hour_is_marked_before_anything_is_written(engine: Engine) -> None:
    """However long an import waits for a wallet, a count of the hour waits for it."""
    marks: list[str] = []

    def look(_connection: object, cursor: Any, statement: str, *_others: object) -> None:
        if "INSERT INTO buffer.hold" in statement:
            found = cursor.connection.execute("SELECT current_setting('buffer.entered_hour', true)")
            marks.append(found.fetchone()[0])

    event.listen(engine, "before_cursor_execute", look)
    with engine.begin() as connection:
        add_many_pending_earnings(connection, [Earning(**EARNING)], now=NOON)

    assert set(marks) == {str(int(NOON.timestamp()) // 3600)}


def test_first_earning_of_an_owner_and_later_ones_are_the_same(connection: Connection) -> None:
    """With and without existing wallets, the rows are the same."""
    first = add(connection)
    second = add(connection, reference="invoice-2")

    assert transactions_of(connection, first.hold_id) == transactions_of(connection, second.hold_id)
    rows = [
        {**hold_row(connection, hold_id), "hold_id": None, "reference": None}
        for hold_id in (first.hold_id, second.hold_id)
    ]
    assert rows[0] == rows[1]
    assert notifications_of(connection, PAYEE) == ["PAYMENT_PENDING"] * 2
    assert wallet_of(connection, PAYEE) == Wallet(pending_earnings_minor=200_000)


def test_payee_is_not_notified_of_an_import(connection: Connection) -> None:
    """With notify=False."""
    add_many_pending_earnings(connection, [Earning(**EARNING)], now=NOON, notify=False)

    assert row_counts(connection)["hold"] == 1
    assert row_counts(connection)["notification"] == 0
