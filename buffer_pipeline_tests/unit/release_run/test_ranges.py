"""A range of holds is released completely in one transaction, and nothing beyond it."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, select, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import make_engine
from buffer_pipeline.errors import BooksOutOfBalance, InvalidInput
from buffer_pipeline.hold import HoldState
from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.release import (
    ReleaseBatch,
    ReleasePosition,
    ReleaseRange,
    Shard,
    release_matured,
    release_range,
)
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.tables import wallet
from buffer_pipeline_tests.support.builders import (
    DAY_7,
    NOON,
    PAYEE,
    PAYER,
    Wallet,
    books,
    place_hold,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.support.due_ranges import LATE, place_over_hours, release_within

# ---- one range


def test_range_is_released_whole_and_no_further(connection: Connection) -> None:
    """Holds after the first position up to the second are released; their neighbours stay."""
    holds = [place_hold(connection, release_date=DAY_7 - HOUR) for _ in range(4)]
    wallet_id = connection.scalar(select(wallet.c.wallet_id).where(wallet.c.owner == PAYEE)) or 0
    first, third = (
        ReleasePosition(hour=hour_of(DAY_7 - HOUR), wallet_id=wallet_id, hold_id=hold_id)
        for hold_id in (holds[0], holds[2])
    )

    batch = release_within(connection, after=first, through=third)

    assert (batch.holds_released, batch.amounts_minor) == (2, {"PHP": 200_000})
    states = [state_of(connection, hold_id) for hold_id in holds]
    assert [state is HoldState.RELEASED for state in states] == [False, True, True, False]
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=200_000, pending_earnings_minor=200_000)


def test_range_leaves_what_is_frozen_or_not_due(connection: Connection) -> None:
    """Only matured holds without a freeze are released, to the microsecond."""
    frozen = place_hold(connection, state=HoldState.FROZEN)
    later = place_hold(connection, release_date=DAY_7 + timedelta(microseconds=1))
    due = place_hold(connection)

    batch = release_within(connection)

    assert batch.holds_released == 1
    assert [state_of(connection, hold_id) for hold_id in (frozen, later, due)] == [
        HoldState.FROZEN,
        HoldState.BUFFERED,
        HoldState.RELEASED,
    ]


def test_range_of_a_shard_leaves_other_wallets(connection: Connection) -> None:
    """In each of its hours it releases only the shard's wallets."""
    for owner in ("worker-1", "worker-2"):
        for hours in (0, 1, 2):
            place_hold(connection, payee=owner, release_date=DAY_7 - hours * HOUR)
    wallet_id = connection.scalar(select(wallet.c.wallet_id).where(wallet.c.owner == "worker-1")) or 0

    batch = release_within(connection, shard=Shard(after=wallet_id - 1, through=wallet_id))

    assert batch.holds_released == 3
    assert wallet_of(connection, "worker-1") == Wallet(balance_minor=300_000)
    assert wallet_of(connection, "worker-2") == Wallet(pending_earnings_minor=300_000)


def test_range_writes_what_a_release_writes(engine: Engine) -> None:
    """Both kinds of release leave the same books."""
    place_over_hours(engine, 200, seed=1)
    with engine.connect() as connection:
        release_matured(connection, now=LATE, due_by=LATE, batch_limit=1_000, source="a test")
        expected = _outcome(connection)
        connection.rollback()

        release_within(connection, due_by=LATE)

        assert _outcome(connection) == expected
        assert reconcile(connection) == []
        connection.rollback()


def _outcome(connection: Connection) -> list[Any]:
    """Return what a release leaves behind, without ids, because a rollback uses some up."""
    return [
        connection.execute(text(f"SELECT {columns} FROM buffer.{table} ORDER BY {columns}")).all()
        for table, columns in (
            ("unsettled_hold", "hold_id, state, amount_minor"),
            ("wallet", "wallet_id, balance_minor, pending_earnings_minor"),
            (
                "transaction",
                "hold_id, type, from_wallet_id, to_wallet_id, amount_minor, release_date, recorded_at",
            ),
            ("notification", "hold_id, type, owner, amount_minor, currency"),
            ("batch", "kind, source, due_by, recorded_at"),
        )
    ]


def test_range_released_again_releases_nothing(connection: Connection) -> None:
    """The second time it finds nothing and writes nothing."""
    place_hold(connection)
    release_within(connection)
    before = books(connection)

    again = release_within(connection)

    assert (again.holds_released, again.batch_id) == (0, None)
    assert books(connection) == before


@pytest.mark.parametrize("name", ["now", "due_by"])
def test_range_refuses_naive_times(connection: Connection, name: str) -> None:
    """A clock or cut-off without a time zone is refused by name."""
    times: dict[str, Any] = {"now": DAY_7, "due_by": DAY_7, name: DAY_7.replace(tzinfo=None)}
    hold_range = ReleaseRange(after=ReleasePosition(), through=ReleasePosition.end(DAY_7), shard=Shard())

    with pytest.raises(InvalidInput, match=f"^{name} .* no time zone"):
        release_range(connection, hold_range=hold_range, source="a test", **times)


def test_range_sets_its_transaction_up(connection: Connection) -> None:
    """It marks its hour, sets a short lock timeout, and reads tables by index."""
    release_within(connection)

    settings = ("buffer.entered_hour", "lock_timeout", "enable_seqscan")
    assert [connection.scalar(select(func.current_setting(name))) for name in settings] == [
        str(int(DAY_7.timestamp()) // 3600),
        "50ms",
        "off",
    ]


# ---- concurrent transactions


LOSE = "CREATE FUNCTION buffer.lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"


@pytest.mark.parametrize("way", ["range", "ids"])
@pytest.mark.parametrize(
    ("lost", "credited", "written"),
    [
        (
            "BEFORE UPDATE ON buffer.wallet FOR EACH ROW WHEN (NEW.owner = 'worker-18')",
            "1 of 100000",
            "1 of 100000",
        ),
        ("BEFORE UPDATE ON buffer.wallet FOR EACH ROW", "0 of 0", "0 of 0"),
        (
            "BEFORE INSERT ON buffer.transaction FOR EACH ROW WHEN (NEW.amount_minor = 50000)",
            "2 of 150000",
            "1 of 100000",
        ),
        ("BEFORE INSERT ON buffer.transaction FOR EACH ROW", "2 of 150000", "0 of 0"),
    ],
    ids=["wallet", "wallets", "line", "lines"],
)
def test_money_that_was_not_credited_is_refused(
    engine: Engine, superuser_url: str, way: str, lost: str, credited: str, written: str
) -> None:
    """If less is credited than leaves the buffer, the batch raises an error and is rolled back."""
    with engine.begin() as connection:
        place_hold(connection)
        place_hold(connection, payee="worker-18", amount="500.00")
        before = books(connection)
    superuser_engine = make_engine(superuser_url)
    with superuser_engine.begin() as superuser:
        superuser.execute(text(LOSE))
        superuser.execute(text(f"CREATE TRIGGER lose {lost} EXECUTE FUNCTION buffer.lose()"))
    superuser_engine.dispose()
    ways: dict[str, Callable[[Connection], ReleaseBatch]] = {
        "range": release_within,
        "ids": lambda connection: release_matured(connection, now=DAY_7, batch_limit=10),
    }

    with engine.connect() as connection:
        with pytest.raises(BooksOutOfBalance) as refusal:
            ways[way](connection)
        connection.rollback()
        assert books(connection) == before

    output = re.sub(r"^batch \d+", "batch N", str(refusal.value))
    assert output == (
        "batch N: 2 holds of 150000 minor units left the buffer,"
        f" {credited} were credited, {written} written; roll back"
    )


@pytest.mark.parametrize("way", ["range", "ids"])
def test_messages_of_an_owner_are_numbered_in_the_order_of_holds(engine: Engine, way: str) -> None:
    """Although the statistics expect almost no rows, and a sort does not fit into work_mem."""
    many = 5_000
    with engine.begin() as connection:
        place_hold(connection)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    earning = Earning(
        reference="", job="job-1", payee=PAYEE, payer=PAYER, amount="10.00", currency="PHP", held_at=NOON
    )
    with engine.begin() as connection:
        add_many_pending_earnings(
            connection, [replace(earning, reference=f"many-{number}") for number in range(many)], now=NOON
        )
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL work_mem = '64kB'"))
        if way == "range":
            release_within(connection)
        else:
            release_matured(connection, now=DAY_7, batch_limit=2 * many)
        notified = list(
            connection.scalars(
                text(
                    "SELECT hold_id FROM buffer.notification WHERE type = 'PAYMENT_RELEASED'"
                    " ORDER BY notification_id"
                )
            )
        )

    assert len(notified) == many + 1
    assert notified == sorted(notified)


def test_range_that_has_grown_is_released_in_batches(engine: Engine) -> None:
    """Holds added between counting and release do not make a batch exceed its limit."""
    with engine.begin() as connection:
        for _ in range(3):
            place_hold(connection)
    batches: list[int] = []
    came_in: list[int] = []

    def clock(_connection: Connection) -> datetime:
        if not came_in:
            with engine.begin() as connection:
                came_in.extend(place_hold(connection) for _ in range(4))
        return DAY_7

    release_all_due(
        engine,
        due_by=DAY_7,
        source="a test",
        batch_limit=3,
        clock=clock,
        after_batch=lambda batch: batches.append(batch.holds_released),
    )

    assert (max(batches), sum(batches)) == (3, 7)
