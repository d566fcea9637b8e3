"""Rule 2: matured holds are released once, the oldest release hour first."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, select, text

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.database import make_engine
from buffer_pipeline.errors import BooksOutOfBalance, InvalidInput, NotFound
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.inputs import ID_MAX
from buffer_pipeline.release import (
    ReleaseBatch,
    ReleasePosition,
    ReleaseRange,
    Shard,
    part_wallets,
    release_matured,
    release_range,
)
from buffer_pipeline.tables import batch, transaction
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    JOB,
    NOON,
    PAYEE,
    PAYER,
    Wallet,
    books,
    hold_row,
    notifications_of,
    place_hold,
    release_date_of,
    state_of,
    transactions_of,
    wallet_of,
)
from buffer_pipeline_tests.support.releases import early, release_all

INSTANT = timedelta(microseconds=1)


def test_matured_hold_is_released_whole(connection: Connection) -> None:
    """Into the balance, with a transaction and a notification."""
    hold_id = place_hold(connection)

    released = release_all(connection)

    assert (released.holds_released, released.amounts_minor) == (1, {"PHP": 100_000})
    row = hold_row(connection, hold_id)
    assert (row["state"], row["settled_at"], row["refunded_minor"]) == ("RELEASED", DAY_7, 0)
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=100_000, pending_earnings_minor=0)
    assert wallet_of(connection, PAYER) == Wallet()
    assert transactions_of(connection, hold_id) == [("PENDING_EARNING", 100_000), ("EARNING", 100_000)]
    assert notifications_of(connection, PAYEE) == ["PAYMENT_PENDING", "PAYMENT_RELEASED"]


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (DAY_7 - INSTANT, HoldState.BUFFERED),
        (DAY_7, HoldState.RELEASED),
        (DAY_7 + INSTANT, HoldState.RELEASED),
    ],
)
def test_release_date_is_the_first_moment_that_counts(
    connection: Connection, now: datetime, state: HoldState
) -> None:
    """A hold is released exactly at its release date, not a microsecond before."""
    hold_id = place_hold(connection)

    release_all(connection, now)

    assert state_of(connection, hold_id) is state


def test_hold_in_the_middle_of_an_hour_waits_for_its_minute(connection: Connection) -> None:
    """The hour determines the order, the exact date what is due."""
    due = place_hold(connection, release_date=DAY_7 + timedelta(minutes=20))
    not_due = place_hold(connection, release_date=DAY_7 + timedelta(minutes=40))

    released = release_all(connection, DAY_7 + timedelta(minutes=30))

    assert released.holds_released == 1
    assert state_of(connection, due) is HoldState.RELEASED
    assert state_of(connection, not_due) is HoldState.BUFFERED


def test_due_by_and_now_are_two_times(connection: Connection) -> None:
    """The cut-off decides what is due; the books record `now`."""
    due = place_hold(connection)
    later = place_hold(connection, release_date=DAY_7 + timedelta(minutes=1))

    release_matured(connection, now=DAY_7 + timedelta(hours=1), due_by=DAY_7, batch_limit=10)

    assert hold_row(connection, due)["settled_at"] == DAY_7 + timedelta(hours=1)
    assert state_of(connection, later) is HoldState.BUFFERED


def test_a_cut_off_after_now_is_refused(connection: Connection) -> None:
    """The books would record a release before its date."""
    place_hold(connection)
    before = books(connection)
    due_by = DAY_7 + timedelta(seconds=1)
    everything = ReleaseRange(after=ReleasePosition(), through=ReleasePosition.end(due_by), shard=Shard())

    with pytest.raises(InvalidInput, match=r"due_by 2026-03-09T12:00:01\+00:00: lies after now, 2026-03-09"):
        release_matured(connection, now=DAY_7, due_by=due_by, batch_limit=1)
    with pytest.raises(InvalidInput, match="lies after now"):
        release_range(connection, hold_range=everything, now=DAY_7, due_by=due_by, source="a test")

    assert books(connection) == before


def test_nothing_due_is_an_empty_batch(connection: Connection) -> None:
    """Nothing is written, not even a batch."""
    place_hold(connection)
    before = books(connection)

    released = release_all(connection, NOON)

    assert released == ReleaseBatch()
    assert books(connection) == before


def test_batch_records_its_source_cut_off_and_time(connection: Connection) -> None:
    """A batch is on the books with its source, its cut-off and its time."""
    place_hold(connection)

    released = release_all(connection)

    row = connection.execute(select(batch)).mappings().one()
    assert (row["batch_id"], row["kind"], row["source"]) == (released.batch_id, "DUE", "a test")
    assert (row["due_by"], row["recorded_at"], row["reason"]) == (DAY_7, DAY_7, None)


def test_balance_after_runs_along_within_a_batch(connection: Connection) -> None:
    """Each EARNING has the balance after it, also if a batch credits a wallet three times."""
    for amount in ("100.00", "20.00", "3.00"):
        place_hold(connection, amount=amount)
    place_hold(connection, amount="5.00", payee="worker-18")
    place_hold(connection, amount="7.00", currency="USD")

    released = release_all(connection)

    rows = connection.execute(
        select(transaction.c.balance_after_minor)
        .where(transaction.c.type == "EARNING", transaction.c.currency == "PHP")
        .order_by(transaction.c.to_wallet_id, transaction.c.transaction_id)
    ).scalars()
    assert list(rows) == [10_000, 12_000, 12_300, 500]
    assert released.amounts_minor == {"PHP": 12_800, "USD": 700}


def test_frozen_hold_outlives_its_release_date(connection: Connection) -> None:
    """A frozen hold is not released, however late the clock."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)

    released = release_all(connection, DAY_7 + timedelta(days=365))

    assert released.holds_released == 0
    assert state_of(connection, hold_id) is HoldState.FROZEN


def test_late_hold_is_released_once_its_freeze_is_gone(connection: Connection) -> None:
    """A hold that matured while frozen is due as soon as no freeze is open."""
    hold_id = place_hold(connection)
    freeze = freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="?", now=NOON)
    late = DAY_7 + timedelta(days=3)

    unfreeze_hold(connection, freeze_id=freeze.freeze_id, by=ADMIN, reason="fine", now=late)

    assert release_date_of(connection, hold_id) == DAY_7
    assert release_all(connection, late).holds_released == 1


def test_oldest_release_hour_goes_first(connection: Connection) -> None:
    """A limited batch takes the oldest hours, and the next one continues."""
    newest = place_hold(connection, release_date=DAY_7 + timedelta(hours=2))
    oldest = place_hold(connection, release_date=DAY_7 - timedelta(days=3))
    middle = place_hold(connection, release_date=DAY_7)
    now = DAY_7 + timedelta(days=1)

    released = []
    for _ in range(3):
        assert release_matured(connection, now=now, batch_limit=1).holds_released == 1
        released.append(
            [hold for hold in (oldest, middle, newest) if state_of(connection, hold) == "RELEASED"]
        )

    assert released == [[oldest], [oldest, middle], [oldest, middle, newest]]


def test_batch_limit_is_kept(connection: Connection) -> None:
    """A batch releases exactly its limit if enough is due."""
    for _ in range(5):
        place_hold(connection)

    sizes = [release_matured(connection, now=DAY_7, batch_limit=2).holds_released for _ in range(4)]

    assert sizes == [2, 2, 1, 0]
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=500_000)


def test_batch_after_a_position_takes_only_later_holds(connection: Connection) -> None:
    """A batch that starts after another's position finds only what comes after it."""
    for hours in range(3):
        place_hold(connection, release_date=DAY_7 + timedelta(hours=hours))
    now = DAY_7 + timedelta(days=1)
    first = release_matured(connection, now=now, batch_limit=2)
    place_hold(connection, release_date=DAY_7 - timedelta(days=1))

    second = release_matured(connection, now=now, batch_limit=10, after=first.position)

    assert (first.holds_released, second.holds_released) == (2, 1)
    assert release_matured(connection, now=now, batch_limit=10).holds_released == 1


def test_each_wallet_is_in_one_shard(connection: Connection) -> None:
    """All shards together have all wallets."""
    payees = [f"worker-{number}" for number in range(7)]
    for payee in payees * 2:
        place_hold(connection, payee=payee)

    paid: list[set[str]] = []
    shards = part_wallets(connection, due_by=DAY_7, shards=3)
    for shard in shards:
        before = {payee for payee in payees if wallet_of(connection, payee).balance_minor}
        release_matured(connection, now=DAY_7, batch_limit=100, shard=shard)
        paid.append({payee for payee in payees if wallet_of(connection, payee).balance_minor} - before)

    assert [wallet_of(connection, payee) for payee in payees] == [Wallet(balance_minor=200_000)] * 7
    assert sum(len(share) for share in paid) == 7
    assert sorted(len(share) for share in paid) == [2, 2, 3]
    assert [shard.after for shard in shards] == [0, *(shard.through for shard in shards[:-1])]
    assert shards[-1].through == ID_MAX
    assert release_all(connection).holds_released == 0


def test_a_wallet_that_has_everything_is_one_shard(connection: Connection) -> None:
    """One shard has it, and no wallet is in two."""
    for _ in range(5):
        place_hold(connection)

    shards = part_wallets(connection, due_by=DAY_7, shards=3)

    released = [
        release_matured(connection, now=DAY_7, batch_limit=100, shard=shard).holds_released
        for shard in shards
    ]
    assert sorted(released) == [*[0] * (len(shards) - 1), 5]


def test_nothing_due_is_one_shard_of_all_wallets(connection: Connection) -> None:
    """What becomes due meanwhile is in it."""
    assert part_wallets(connection, due_by=DAY_7, shards=3) == [Shard()]


@pytest.mark.parametrize("batch_limit", [0, -1])
def test_batch_limit_below_one_is_refused(connection: Connection, batch_limit: int) -> None:
    """Rather than releasing nothing."""
    with pytest.raises(InvalidInput, match=f"batch_limit {batch_limit}: must be at least 1"):
        release_matured(connection, now=NOON, batch_limit=batch_limit)


@pytest.mark.parametrize("name", ["now", "due_by"])
def test_naive_clock_is_refused(connection: Connection, name: str) -> None:
    """A release needs a time zone."""
    place_hold(connection)
    before = books(connection)
    times: dict[str, Any] = {"now": DAY_7, "due_by": DAY_7, name: DAY_7.replace(tzinfo=None)}

    with pytest.raises(InvalidInput, match=f"{name} .* no time zone"):
        release_matured(connection, batch_limit=10, **times)

    assert books(connection) == before


def entered_hour(connection: Connection) -> str | None:
    """Return the hour that the transaction has marked as being written, counted from the epoch."""
    return connection.scalar(select(func.current_setting("buffer.entered_hour", True))) or None


def test_release_marks_its_hour_before_it_reads(connection: Connection) -> None:
    """Even if nothing is due. A count of the hour waits for it."""
    release_all(connection)

    assert entered_hour(connection) == str(int(DAY_7.timestamp()) // 3600)


def test_early_release_marks_its_hour_before_it_reads(connection: Connection) -> None:
    """Even if nothing can be released."""
    with pytest.raises(NotFound):
        early(connection, hold_id=404)

    assert entered_hour(connection) == str(int(NOON.timestamp()) // 3600)


def test_release_without_a_source_is_unnamed(connection: Connection) -> None:
    """A batch always has a source."""
    place_hold(connection)

    release_matured(connection, now=DAY_7, batch_limit=10)

    assert connection.scalar(select(batch.c.source)) == "unnamed"


@pytest.mark.parametrize("way", ["due", "early"])
def test_hold_that_stays_although_it_was_locked_is_refused(
    engine: Engine, superuser_url: str, way: str
) -> None:
    """A batch that settles fewer holds than it locked raises an error and is rolled back."""
    with engine.begin() as connection:
        kept = [place_hold(connection), place_hold(connection)][1]
        before = books(connection)
    with make_engine(superuser_url).begin() as superuser:
        superuser.execute(
            text("CREATE FUNCTION buffer.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        )
        superuser.execute(
            text(
                "CREATE TRIGGER keep BEFORE DELETE ON buffer.unsettled_hold FOR EACH ROW"
                f" WHEN (OLD.hold_id = {kept}) EXECUTE FUNCTION buffer.keep()"
            )
        )

    with engine.connect() as connection:
        with pytest.raises(BooksOutOfBalance) as refusal:
            release_all(connection) if way == "due" else early(connection, job=JOB)
        connection.rollback()
        assert books(connection) == before

    assert str(refusal.value) == "release: 2 holds were locked, 1 released; roll back"


def test_released_hold_is_not_released_again(connection: Connection) -> None:
    """A second release finds nothing and writes nothing."""
    place_hold(connection)
    release_all(connection)
    before = books(connection)

    again = release_all(connection, DAY_7 + timedelta(days=1))

    assert again.holds_released == 0
    assert books(connection) == before


def test_release_rolled_back_is_still_due(engine: Engine) -> None:
    """The next release takes it."""
    with engine.begin() as connection:
        place_hold(connection)
        before = books(connection)
    with engine.connect() as connection:
        release_all(connection)
        connection.rollback()
        assert books(connection) == before

    with engine.begin() as connection:
        assert release_all(connection).holds_released == 1


def test_partly_refunded_hold_releases_its_rest(connection: Connection) -> None:
    """On the hold's own date."""
    hold_id = place_hold(connection)
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="half done", now=NOON)
    approve_backjob(
        connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="so it is", amount="400.00", now=NOON
    )

    too_early = release_all(connection, DAY_7 - INSTANT)
    released = release_all(connection, DAY_7)

    assert too_early.holds_released == 0
    assert released.amounts_minor == {"PHP": 60_000}
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=60_000)
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=40_000)
    assert hold_row(connection, hold_id)["state"] == "RELEASED"


def test_rejected_hold_is_released_a_day_later(connection: Connection) -> None:
    """To the microsecond."""
    place_hold(connection)
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)
    reject_backjob(connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="no", now=NOON)
    new_date = DAY_7 + timedelta(hours=24)

    assert release_all(connection, new_date - INSTANT).holds_released == 0
    assert release_all(connection, new_date).holds_released == 1
