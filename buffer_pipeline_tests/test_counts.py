"""The hourly counts: what they say, when an hour is complete, and that they move no money."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, func, select, text

from buffer_pipeline import counts as counts_module
from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.counts import (
    compute_counts,
    count_hours,
    counts_between,
    differing_counts,
    first_hour,
    uncounted_hours,
)
from buffer_pipeline.database import database_clock, make_engine
from buffer_pipeline.drain import drain_matured
from buffer_pipeline.errors import HourInProgress, InvalidInput, PaymentBufferError
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.hours import HOUR, clock_of_a_writer, earliest_hour_in_progress, hour_of
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.tables import counted_hour, hourly_release_count, wallet
from buffer_pipeline_tests.builders import (
    ADMIN,
    PAYER,
    WAIT_SECONDS_MAX,
    all_at_once,
    books,
    bring_in,
    place_hold,
    waiting_for_a_lock,
)
from buffer_pipeline_tests.conftest import NOON

REPORTS: Final = {"counted_hour", "hourly_release_count"}
AT_RELEASE: Final = NOON + timedelta(days=7, hours=3)


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a frame's rows without the zeros, a NaN as None."""
    return [
        {
            str(name): None if pd.isna(value) else value
            for name, value in record.items()
            if not (isinstance(value, int) and value == 0)
        }
        for record in frame.to_dict("records")
    ]


def money(connection: Connection) -> dict[str, Any]:
    """Return every row of every table but the reports."""
    return {name: content for name, content in books(connection).items() if name not in REPORTS}


def release(connection: Connection, *, now: datetime) -> None:
    """Release all that is due at `now`."""
    release_matured(connection, now=now, due_by=now, batch_limit=1000, source="test")


# ---- the figures


def test_an_hour_counts_what_happened_in_it(connection: Connection) -> None:
    """Added, released on schedule and early, payees, lateness, refunds and freezes, each in its hour."""
    place_hold(connection, payee="worker-1", amount="10.00")
    place_hold(connection, payee="worker-1", amount="20.00", held_at=NOON + timedelta(minutes=20))
    place_hold(connection, payee="worker-2", amount="40.00", held_at=NOON + timedelta(minutes=30))
    early = place_hold(connection, payee="worker-3", amount="80.00", held_at=NOON + timedelta(hours=2))
    place_hold(connection, job="job-9", amount="5.00", held_at=NOON + timedelta(hours=2))
    release_early(
        connection, hold_id=early, by=PAYER, reason="well done", now=AT_RELEASE + timedelta(minutes=1)
    )
    backjob = request_backjob(
        connection, job="job-9", by=PAYER, reason="not as agreed", now=NOON + timedelta(hours=5)
    )
    release(connection, now=AT_RELEASE)
    approve_backjob(connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="indeed", now=AT_RELEASE)

    counts = compute_counts(connection, start=NOON, end=AT_RELEASE + HOUR)

    on_time: dict[str, None] = {"lateness_median_seconds": None, "lateness_max_seconds": None}
    assert rows(counts) == [
        {"hour": NOON, "currency": "PHP", "holds_added": 3, "added_minor": 7000, **on_time},
        {
            "hour": NOON + timedelta(hours=2),
            "currency": "PHP",
            "holds_added": 2,
            "added_minor": 8500,
            **on_time,
        },
        {"hour": NOON + timedelta(hours=5), "currency": "PHP", "freezes_opened": 1, **on_time},
        {
            "hour": AT_RELEASE,
            "currency": "PHP",
            "holds_released": 4,
            "holds_released_early": 1,
            "released_minor": 15000,
            "payees": 3,
            # Due at 12:00, 12:20 and 12:30, released at 15:00; the early one is not late.
            "lateness_median_seconds": 160 * 60.0,
            "lateness_max_seconds": 180 * 60.0,
            "refunds": 1,
            "refunded_minor": 500,
            "freezes_closed": 1,
        },
    ]


def test_currencies_are_counted_apart(connection: Connection) -> None:
    """An hour has a row a currency, in order; a payee with two currencies has two wallets."""
    place_hold(connection, amount="10.00")
    place_hold(connection, amount="300", currency="JPY")
    release(connection, now=AT_RELEASE)

    counts = compute_counts(connection, start=AT_RELEASE, end=AT_RELEASE + HOUR)

    assert [(row["currency"], row["released_minor"], row["payees"]) for row in rows(counts)] == [
        ("JPY", 300, 1),
        ("PHP", 1000, 1),
    ]


def test_an_hour_begins_with_its_first_microsecond(connection: Connection) -> None:
    """The full hour belongs to the hour that begins with it, the microsecond before to the last one."""
    place_hold(connection, held_at=NOON)
    place_hold(connection, held_at=NOON - timedelta(microseconds=1))

    counts = compute_counts(connection, start=NOON - HOUR, end=NOON + HOUR)

    assert [(row["hour"], row["holds_added"]) for row in rows(counts)] == [(NOON - HOUR, 1), (NOON, 1)]


def test_days_are_read_in_pieces(connection: Connection) -> None:
    """A range of several pieces has each hour once, on both sides of a piece's end."""
    chunk = counts_module.CHUNK
    hours = [NOON, NOON + chunk - HOUR, NOON + chunk, NOON + 3 * chunk - HOUR]
    for hour in hours:
        place_hold(connection, held_at=hour)

    counts = compute_counts(connection, start=NOON, end=NOON + 3 * chunk)

    assert [row["hour"] for row in rows(counts)] == hours


def test_a_frame_without_rows_has_its_types(connection: Connection) -> None:
    """Empty hours give the same columns and types as full ones."""
    empty = compute_counts(connection, start=NOON, end=NOON + HOUR)
    place_hold(connection)

    full = compute_counts(connection, start=NOON, end=NOON + HOUR)

    assert len(empty) == 0
    assert empty.dtypes.equals(full.dtypes)
    assert str(full["hour"].dtype) == "datetime64[us, UTC]"
    assert full["released_minor"].dtype == np.int64


def test_amounts_that_64_bits_do_not_hold_are_refused(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sum never wraps around: it is refused, and the hour is named."""
    movements = pd.DataFrame(
        {
            "hour": pd.Series([NOON] * 5).dt.as_unit("us"),
            "currency": "PHP",
            "kind": 1,
            "amount_minor": [2**61] * 5,
            "payee_wallet_id": 1,
            "lateness_microseconds": 0,
        }
    )
    monkeypatch.setattr(
        counts_module, "movements", lambda *_args, **_kwargs: (frame for frame in [movements])
    )

    with pytest.raises(PaymentBufferError, match="2026-03-02T12:00Z: their amounts add up to more"):
        compute_counts(connection, start=NOON, end=NOON + HOUR)


STATES: Final = (HoldState.BUFFERED, HoldState.RELEASED, HoldState.FROZEN, HoldState.REFUNDED)
"""Early releases, standing freezes, and refunds with their freezes, beside what the schedule releases."""
MOMENTS: Final = st.integers(0, 6 * 3600 * 10**6).map(
    lambda microseconds: NOON + timedelta(microseconds=microseconds)
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    held=st.lists(
        st.tuples(MOMENTS, st.sampled_from(["PHP", "JPY"]), st.integers(1, 10**6), st.sampled_from("abc")),
        max_size=12,
    ),
    released=MOMENTS,
    settles=st.booleans(),
)
def test_the_frame_and_the_sql_agree(
    engine: Engine, held: list[tuple[datetime, str, int, str]], released: datetime, settles: bool
) -> None:
    """Counted in pandas and counted in SQL, any hours come to the same figures."""
    with engine.connect() as connection, connection.begin() as transaction:
        for number, (moment, currency, amount, payee) in enumerate(held):
            place_hold(
                connection,
                job=f"job-{number}",
                payee=f"worker-{payee}",
                amount=str(amount),
                currency=currency,
                held_at=moment,
                release_date=moment + timedelta(hours=number),
                state=STATES[number % len(STATES)] if settles else HoldState.BUFFERED,
            )
        release(connection, now=released + timedelta(hours=6))
        end = NOON + timedelta(hours=13)
        counts = compute_counts(connection, start=NOON, end=end)
        connection.execute(
            counted_hour.insert(),
            [{"hour": NOON + hour * HOUR, "counted_by": "test", "counted_at": end} for hour in range(13)],
        )
        if len(counts):
            connection.execute(hourly_release_count.insert(), counts_module._records(counts))

        differing = differing_counts(connection, start=NOON, end=end)

        transaction.rollback()
    assert differing == []


# ---- stored


def test_counting_again_replaces(engine: Engine) -> None:
    """An hour that is counted a second time has its new figures and no others."""
    with engine.begin() as connection:
        place_hold(connection)
    count_hours(engine, start=NOON, end=NOON + 3 * HOUR, counted_by="first")
    with engine.begin() as connection:
        place_hold(connection, held_at=NOON + HOUR)
        place_hold(connection, held_at=NOON + HOUR, currency="JPY", amount="7")

    again = count_hours(engine, start=NOON + HOUR, end=NOON + 2 * HOUR, counted_by="second")

    with engine.connect() as connection:
        by = connection.execute(
            select(counted_hour.c.hour, counted_hour.c.counted_by).order_by(counted_hour.c.hour)
        ).all()
        stored = counts_between(connection, start=NOON, end=NOON + 3 * HOUR)
    assert [tuple(row) for row in by] == [
        (NOON, "first"),
        (NOON + HOUR, "second"),
        (NOON + 2 * HOUR, "first"),
    ]
    assert len(again) == 2
    assert [(row["hour"], row["currency"]) for row in rows(stored)] == [
        (NOON, "PHP"),
        (NOON + HOUR, "JPY"),
        (NOON + HOUR, "PHP"),
    ]


def test_a_count_moves_no_money(engine: Engine) -> None:
    """Every wallet, and every other row but the report's, is as it was before."""
    with engine.begin() as connection:
        place_hold(connection)
        place_hold(connection, state=HoldState.RELEASED)
        place_hold(connection, state=HoldState.FROZEN)
        place_hold(connection, job="job-9", state=HoldState.REFUNDED)
        before = money(connection)

    count_hours(engine, start=NOON - 720 * HOUR, end=NOON + HOUR, counted_by="test")

    with engine.connect() as connection:
        assert money(connection) == before
        assert connection.scalar(select(func.count()).select_from(counted_hour)) == 721


def test_stored_and_computed_hours_are_one_frame(engine: Engine) -> None:
    """What is not counted yet is computed, and the frame is the same as if all were."""
    with engine.begin() as connection:
        for hour in range(8):
            place_hold(connection, held_at=NOON + hour * HOUR, state=HoldState.RELEASED)
    count_hours(engine, start=NOON + HOUR, end=NOON + 3 * HOUR, counted_by="test")
    count_hours(engine, start=NOON + 5 * HOUR, end=NOON + 6 * HOUR, counted_by="test")

    with engine.connect() as connection:
        mixed = counts_between(connection, start=NOON, end=NOON + 8 * HOUR)
        computed = compute_counts(connection, start=NOON, end=NOON + 8 * HOUR)
        missing = uncounted_hours(connection, start=NOON, end=NOON + 8 * HOUR)

    pd.testing.assert_frame_equal(mixed, computed)
    assert missing == [NOON + hour * HOUR for hour in (0, 3, 4, 6, 7)]


def test_counts_side_by_side_wait_for_each_other(engine: Engine) -> None:
    """A backfill and the schedule that count the same hours at once both succeed."""
    with engine.begin() as connection:
        place_hold(connection)

    def count(_connection: Connection) -> int:
        return len(count_hours(engine, start=NOON - 48 * HOUR, end=NOON + 48 * HOUR, counted_by="test"))

    assert all_at_once(engine, count, count, count) == [1, 1, 1]
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(counted_hour)) == 96


@pytest.mark.parametrize(
    ("start", "end", "fact"),
    [
        (NOON + timedelta(minutes=1), NOON + HOUR, "start 2026-03-02T12:01:00+00:00: not a full hour"),
        (NOON, NOON.replace(tzinfo=None) + HOUR, "end 2026-03-02T13:00:00: not a full hour"),
        (NOON, NOON, "start 2026-03-02T12:00Z: not before the end"),
        (NOON, hour_of(datetime.now(UTC)) + 2 * HOUR, "not over yet"),
    ],
    ids=["minutes", "naive", "no-hour", "future"],
)
def test_wrong_hours_are_refused(engine: Engine, start: datetime, end: datetime, fact: str) -> None:
    """The refusal names the bound, and nothing is written."""
    with pytest.raises(InvalidInput, match=fact.replace("+", r"\+")):
        count_hours(engine, start=start, end=end, counted_by="test")

    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(counted_hour)) == 0


def test_the_books_begin_with_their_first_transaction(connection: Connection) -> None:
    """With the earliest, whatever the order in which they were written; empty books have no first hour."""
    empty = first_hour(connection)
    place_hold(connection, held_at=NOON + timedelta(minutes=59))
    place_hold(connection, held_at=NOON + timedelta(days=3))

    place_hold(connection, held_at=NOON - timedelta(days=3))

    assert empty is None
    assert first_hour(connection) == NOON - timedelta(days=3)


# ---- an hour that is being written


def test_a_release_that_is_not_committed_keeps_its_hour_open(engine: Engine) -> None:
    """While a batch is open its hour is not counted, and nothing is written; once it commits, it is in."""
    with engine.begin() as connection:
        place_hold(connection)
    with engine.connect() as writer, writer.begin() as transaction:
        release(writer, now=AT_RELEASE)

        with pytest.raises(HourInProgress, match="2026-03-09T15:00Z: a transaction still writes into it"):
            count_hours(
                engine, start=AT_RELEASE - HOUR, end=AT_RELEASE + HOUR, counted_by="test", wait_seconds_max=0
            )
        before = count_hours(
            engine, start=AT_RELEASE - HOUR, end=AT_RELEASE, counted_by="test", wait_seconds_max=0
        )
        transaction.commit()

    counts = count_hours(
        engine, start=AT_RELEASE, end=AT_RELEASE + HOUR, counted_by="test", wait_seconds_max=0
    )

    assert len(before) == 0
    assert [row["holds_released"] for row in rows(counts)] == [1]


def test_a_verb_that_waits_has_marked_its_hour(engine: Engine) -> None:
    """An early release that has waited for a wallet since its own hour keeps that hour from being counted."""
    hour = hour_of(datetime.now(UTC)) - 2 * HOUR
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    def keep_the_wallets(connection: Connection) -> None:
        connection.execute(select(wallet).with_for_update())

    def release_then(connection: Connection) -> None:
        release_early(
            connection, hold_id=hold_id, by=PAYER, reason="well done", now=hour + timedelta(minutes=59)
        )

    def count_meanwhile(connection: Connection) -> str:
        keep_the_wallets(connection)
        with ThreadPoolExecutor(1) as threads, engine.connect() as watcher:
            running = threads.submit(run_in_transaction, engine, release_then)
            deadline = time.monotonic() + WAIT_SECONDS_MAX
            while not waiting_for_a_lock(watcher):
                assert time.monotonic() < deadline, "the release does not wait"
            with pytest.raises(HourInProgress) as refusal:
                count_hours(engine, start=hour, end=hour + HOUR, counted_by="test", wait_seconds_max=0)
            connection.rollback()
            running.result(timeout=WAIT_SECONDS_MAX)
        return str(refusal.value)

    with engine.connect() as connection:
        said = count_meanwhile(connection)

    assert said.startswith(f"hour {hour:%Y-%m-%dT%H:%MZ}: ")
    counts = count_hours(engine, start=hour, end=hour + HOUR, counted_by="test")
    assert [row["holds_released_early"] for row in rows(counts)] == [1]


def run_in_transaction(engine: Engine, verb: Callable[[Connection], None]) -> None:
    """Run a verb and commit."""
    with engine.begin() as connection:
        verb(connection)


def marks_at_each_statement(engine: Engine) -> list[tuple[str, datetime | None]]:
    """Return a list that grows by each statement and the hour in progress, as another session sees it."""
    seen: list[tuple[str, datetime | None]] = []
    watcher_engine = make_engine(engine.url)

    @event.listens_for(engine, "before_cursor_execute")
    def look(_connection: Connection, _cursor: object, statement: str, *_arguments: object) -> None:
        with watcher_engine.connect() as watcher:
            seen.append((statement, earliest_hour_in_progress(watcher)))

    return seen


@pytest.mark.parametrize("limit", [None, 10], ids=["straight", "limited"])
def test_a_release_marks_its_hour_before_all_else(engine: Engine, limit: int | None) -> None:
    """From its second statement on, each batch of a release run has its hour marked: nothing that it does
    later, the reading of the clock that it records included, can fall between.
    """
    with engine.begin() as connection:
        place_hold(connection)
    before = hour_of(datetime.now(UTC))
    seen = marks_at_each_statement(engine)

    drain_matured(engine, due_by=AT_RELEASE, source="test", limit=limit)

    first = next(place for place, (statement, _) in enumerate(seen) if "clock_timestamp()" in statement)
    settling = next(place for place, (statement, _) in enumerate(seen) if "released_stretch" in statement)
    assert [hour for _, hour in seen[: first + 1]] == [None] * (first + 1)
    later = [hour for _, hour in seen[first + 1 : settling + 1]]
    assert len(later) >= 2
    assert all(hour is not None and before <= hour <= hour_of(datetime.now(UTC)) for hour in later)


def test_the_clock_of_a_writer_is_read_behind_its_mark(engine: Engine) -> None:
    """However long the mark takes, the time that is returned is a later one."""
    keep_the_marks = text(
        "SELECT pg_advisory_xact_lock(hashtext('buffer.hour'), hours) FROM generate_series("
        "CAST(extract(epoch FROM clock_timestamp()) / 3600 AS int) - 1,"
        " CAST(extract(epoch FROM clock_timestamp()) / 3600 AS int) + 1) AS hours"
    )
    marked_at: list[datetime] = []

    with engine.connect() as keeper, engine.connect() as watcher, ThreadPoolExecutor(1) as threads:
        keeper.execute(keep_the_marks)
        running = threads.submit(
            run_in_transaction,
            engine,
            lambda connection: marked_at.append(clock_of_a_writer(connection)),
        )
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while not waiting_for_a_lock(watcher):
            assert time.monotonic() < deadline, "the writer does not wait"
        kept_until = database_clock(watcher)
        keeper.rollback()
        running.result(timeout=WAIT_SECONDS_MAX)

    assert marked_at[0] > kept_until


def test_a_count_waits_for_a_release_that_is_about_to_end(engine: Engine) -> None:
    """A count that comes while a batch is open takes up the batch once it has ended."""
    hour = hour_of(datetime.now(UTC)) - 2 * HOUR
    counting_engine = make_engine(engine.url)
    looked = Event()
    looks = 0

    @event.listens_for(counting_engine, "before_cursor_execute")
    def count_looks(_connection: object, _cursor: object, statement: str, *_arguments: object) -> None:
        nonlocal looks
        looks += "pg_locks" in statement
        if looks == 3:
            looked.set()

    with engine.connect() as writer, writer.begin() as transaction, ThreadPoolExecutor(1) as threads:
        place_hold(writer, held_at=hour)
        counting = threads.submit(
            count_hours, counting_engine, start=hour, end=hour + HOUR, counted_by="test"
        )
        assert looked.wait(WAIT_SECONDS_MAX)
        transaction.commit()
        counts = counting.result(timeout=WAIT_SECONDS_MAX)

    counting_engine.dispose()
    assert [row["holds_added"] for row in rows(counts)] == [1]


def test_a_long_history_takes_one_mark(engine: Engine) -> None:
    """Many hours in one transaction, in their order, are one lock; a savepoint gives its mark back."""
    marks = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
    enter = text(
        "SELECT count(buffer.enter_hour(CAST(:first AS timestamptz) + number * interval '1 hour'))"
        " FROM generate_series(1, 20000) AS number"
    )
    with engine.connect() as connection, connection.begin():
        connection.execute(enter, {"first": NOON})
        of_history = connection.scalar(marks)
        with connection.begin_nested() as savepoint:
            connection.execute(enter, {"first": NOON - 30000 * HOUR})
            in_savepoint = connection.scalar(marks)
            savepoint.rollback()
        behind_savepoint = connection.scalar(marks)
        connection.execute(enter, {"first": NOON - 30000 * HOUR})
        with engine.connect() as watcher:
            in_progress = earliest_hour_in_progress(watcher)

    assert (of_history, in_savepoint, behind_savepoint) == (1, 2, 1)
    assert in_progress == NOON - 29999 * HOUR


def test_an_hour_that_is_counted_meanwhile_is_there_once(engine: Engine) -> None:
    """A count that commits between the two looks of a report neither loses nor doubles its hour."""
    with engine.begin() as connection:
        place_hold(connection)
    reader = make_engine(engine.url)
    done: list[bool] = []

    @event.listens_for(reader, "before_cursor_execute")
    def count_now(_connection: object, _cursor: object, statement: str, *_arguments: object) -> None:
        if "hourly_release_count" in statement and not done:
            done.append(True)
            count_hours(engine, start=NOON, end=NOON + HOUR, counted_by="test")

    with reader.connect() as connection:
        counts = counts_between(connection, start=NOON, end=NOON + HOUR)

    reader.dispose()
    assert done
    assert [row["holds_added"] for row in rows(counts)] == [1]


@pytest.mark.parametrize(
    "verb", ["add", "release", "early", "freeze", "unfreeze", "request", "reject", "withdraw", "approve"]
)
def test_every_verb_that_is_counted_marks_its_hour(engine: Engine, verb: str) -> None:
    """Whoever writes what an hour counts keeps it open until the end of the transaction."""
    with engine.begin() as connection:
        hold_id = place_hold(connection, release_date=NOON if verb == "release" else None)
        if verb == "unfreeze":
            freeze = freeze_hold(
                connection, hold_id=hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=NOON
            ).freeze_id
        if verb in ("reject", "withdraw", "approve"):
            backjob = request_backjob(connection, job="job-8", by=PAYER, reason="no", now=NOON).backjob_id
    now = NOON + 5 * HOUR

    with engine.connect() as writer, writer.begin() as transaction:
        if verb == "add":
            place_hold(writer, held_at=now)
        elif verb == "release":
            release_matured(writer, now=now, batch_limit=10, source="test")
        elif verb == "early":
            release_early(writer, hold_id=hold_id, as_admin=True, by=ADMIN, reason="a look", now=now)
        elif verb == "freeze":
            freeze_hold(writer, hold_id=hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=now)
        elif verb == "unfreeze":
            unfreeze_hold(writer, freeze_id=freeze, by=ADMIN, reason="a look", now=now)
        elif verb == "request":
            request_backjob(writer, job="job-8", by=PAYER, reason="a look", now=now)
        elif verb == "withdraw":
            withdraw_backjob(writer, backjob_id=backjob, by=ADMIN, reason="a look", now=now)
        elif verb == "reject":
            reject_backjob(writer, backjob_id=backjob, by=ADMIN, reason="a look", now=now)
        else:
            approve_backjob(writer, backjob_id=backjob, by=ADMIN, reason="a look", now=now)
        with engine.connect() as watcher:
            in_progress = earliest_hour_in_progress(watcher)
        transaction.rollback()

    assert in_progress == hour_of(now)
    with engine.connect() as watcher:
        assert earliest_hour_in_progress(watcher) is None


def test_the_earliest_of_many_hours_counts(engine: Engine) -> None:
    """Two writers keep the earlier of their hours open; one's own hour and a stranger's lock do not count."""
    with engine.begin() as connection:
        bring_in(connection, PHP=2)
    with engine.connect() as first, engine.connect() as second, first.begin(), second.begin():
        place_hold(first, job="job-1", held_at=NOON + 4 * HOUR, payee="worker-1", payer="client-1")
        place_hold(second, job="job-9", held_at=NOON + 2 * HOUR)
        # An advisory lock of somebody else's, of the other form.
        first.execute(text("SELECT pg_advisory_xact_lock_shared(1)"))

        with engine.connect() as watcher:
            in_progress = earliest_hour_in_progress(watcher)
        own = earliest_hour_in_progress(second)

    assert in_progress == NOON + 2 * HOUR
    assert own == NOON + 4 * HOUR


# ---- cut short


def count_in_a_process(
    url: str, hour: datetime, *, function: str = "none", turn: int = 1, number: int = signal.SIGINT
) -> subprocess.CompletedProcess[str]:
    """Count the hours around `hour` in a process, which ends within a minute or fails the test."""
    hours = ((hour - 2 * HOUR).isoformat(), hour.isoformat())
    return subprocess.run(
        [sys.executable, "-m", f"{__package__}.counter", url, *hours, function, str(turn), str(number)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("function", "turn"),
    [
        ("movements", 2),  # The generator is called on for its second frame.
        ("_elements", 2),
        ("_summed", 1),
        ("_summed", 2),
        ("factorize", 1),
    ],
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_count_at_once(
    engine: Engine, database_url: str, this_hour: datetime, function: str, turn: int, number: int, code: int
) -> None:
    """Also while a frame is counted and the database has more of them; nothing is written."""
    earn(engine, this_hour, amount="5.00", holds=400)

    stopped = count_in_a_process(database_url, this_hour, function=function, turn=turn, number=number)
    with engine.connect() as connection:
        written = connection.scalar(select(func.count()).select_from(counted_hour))

    assert stopped.returncode == code, stopped.stderr
    assert written == 0


def test_an_error_while_frames_are_counted_ends_the_count(
    engine: Engine, database_url: str, this_hour: datetime
) -> None:
    """It is raised, and does not wait for the COPY that it has left."""
    earn(engine, this_hour, amount="9999999999999.99", holds=4_800)

    stopped = count_in_a_process(database_url, this_hour)

    assert stopped.returncode == 1
    assert "their amounts add up to more than 64 bits" in stopped.stderr


def earn(engine: Engine, hour: datetime, *, amount: str, holds: int) -> None:
    """Let 20 workers earn in two currencies in the hour before `hour`."""
    with engine.begin() as connection:
        add_many_pending_earnings(
            connection,
            [
                Earning(
                    reference=f"earning-{number}",
                    job=f"job-{number}",
                    payee=f"worker-{number % 20}",
                    payer="client-3",
                    amount=amount,
                    currency="USD" if number == 0 else "PHP",
                )
                for number in range(holds)
            ],
            now=hour - timedelta(minutes=30),
        )
