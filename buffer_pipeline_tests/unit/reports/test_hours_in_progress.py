"""An hour is counted once no transaction writes into it any more."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Final

import pytest
from sqlalchemy import Connection, Engine, event, select, text

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.database import database_clock, make_engine
from buffer_pipeline.errors import HourInProgress
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.hours import HOUR, clock_of_a_writer, earliest_hour_in_progress, hour_of
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.reports.hourly_counts import count_hours, counts_between
from buffer_pipeline.tables import wallet
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    NOON,
    PAYER,
    WAIT_SECONDS_MAX,
    bring_in,
    place_hold,
    waiting_for_a_lock,
)
from buffer_pipeline_tests.support.hour_counts import release_due, rows

AT_RELEASE: Final = NOON + timedelta(days=7, hours=3)


def test_a_release_that_is_not_committed_keeps_its_hour_open(engine: Engine) -> None:
    """While a batch is open, its hour is not counted. After the commit it is."""
    with engine.begin() as connection:
        place_hold(connection)
    with engine.connect() as writer, writer.begin() as transaction:
        release_due(writer, now=AT_RELEASE)

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
    """An early release that has waited for a wallet since its hour keeps that hour from being counted."""
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
        output = count_meanwhile(connection)

    assert output.startswith(f"hour {hour:%Y-%m-%dT%H:%MZ}: ")
    counts = count_hours(engine, start=hour, end=hour + HOUR, counted_by="test")
    assert [row["holds_released_early"] for row in rows(counts)] == [1]


def run_in_transaction(engine: Engine, verb: Callable[[Connection], None]) -> None:
    """Run a verb and commit."""
    with engine.begin() as connection:
        verb(connection)


def marks_at_each_statement(engine: Engine) -> list[tuple[str, datetime | None]]:
    """Return a list of each statement with the hour in progress that another session sees."""
    seen: list[tuple[str, datetime | None]] = []
    watcher_engine = make_engine(engine.url)

    @event.listens_for(engine, "before_cursor_execute")
    def look(_connection: Connection, _cursor: object, statement: str, *_arguments: object) -> None:
        with watcher_engine.connect() as watcher:
            seen.append((statement, earliest_hour_in_progress(watcher)))

    return seen


@pytest.mark.parametrize("limit", [None, 10], ids=["straight", "limited"])
def test_a_release_marks_its_hour_before_all_else(engine: Engine, limit: int | None) -> None:
    """From its second statement on, each batch of a run has its hour marked, before it reads the clock that
    it records.
    """
    with engine.begin() as connection:
        place_hold(connection)
    before = hour_of(datetime.now(UTC))
    seen = marks_at_each_statement(engine)

    release_all_due(engine, due_by=AT_RELEASE, source="test", limit=limit)

    first = next(place for place, (statement, _) in enumerate(seen) if "buffer.clock()" in statement)
    settling = next(place for place, (statement, _) in enumerate(seen) if "released_range" in statement)
    assert [hour for _, hour in seen[: first + 1]] == [None] * (first + 1)
    later = [hour for _, hour in seen[first + 1 : settling + 1]]
    assert len(later) >= 2
    assert all(hour is not None and before <= hour <= hour_of(datetime.now(UTC)) for hour in later)


def test_the_clock_of_a_writer_is_read_after_its_mark(engine: Engine) -> None:
    """However long the mark takes, the returned time is later."""
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
    """A count that starts during a batch includes it after its end."""
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
    """Many hours in one transaction, in order, need one lock. A savepoint releases its mark."""
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
    """A count that commits between two reads of a report neither loses nor duplicates its hour."""
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
    """A transaction that writes what an hour counts keeps the hour open until its end."""
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
    """Two writers keep the earlier of their hours open. The session's own hour and an unrelated lock do not
    count.
    """
    with engine.begin() as connection:
        bring_in(connection, PHP=2)
    with engine.connect() as first, engine.connect() as second, first.begin(), second.begin():
        place_hold(first, job="job-1", held_at=NOON + 4 * HOUR, payee="worker-1", payer="client-1")
        place_hold(second, job="job-9", held_at=NOON + 2 * HOUR)
        # Another application's advisory lock, with two keys.
        first.execute(text("SELECT pg_advisory_xact_lock_shared(1)"))

        with engine.connect() as watcher:
            in_progress = earliest_hour_in_progress(watcher)
        own = earliest_hour_in_progress(second)

    assert in_progress == NOON + 2 * HOUR
    assert own == NOON + 4 * HOUR
