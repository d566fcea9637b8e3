"""The hourly counts: their figures, their storage, and that they move no money."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, func, select

from buffer_pipeline.backjob import approve_backjob, request_backjob
from buffer_pipeline.errors import InvalidInput, PaymentBufferError
from buffer_pipeline.hold import HoldState
from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline.release import release_early
from buffer_pipeline.reports import hourly_counts as counts_module
from buffer_pipeline.reports.complete_hours import differing_counts, first_hour, uncounted_hours
from buffer_pipeline.reports.hourly_counts import compute_counts, count_hours, counts_between
from buffer_pipeline.tables import counted_hour, hourly_release_count
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYER, all_at_once, books, place_hold
from buffer_pipeline_tests.support.hour_counts import release_due, rows

REPORTS: Final = {"counted_hour", "hourly_release_count"}
AT_RELEASE: Final = NOON + timedelta(days=7, hours=3)


def money(connection: Connection) -> dict[str, Any]:
    """Return every row of every table except the reports'."""
    return {name: content for name, content in books(connection).items() if name not in REPORTS}


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
    release_due(connection, now=AT_RELEASE)
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


def test_a_part_counts_its_amount_and_its_payee_and_releases_no_hold(engine: Engine) -> None:
    """An hour with only a part has no released hold. The stored figures match those of SQL."""
    with engine.begin() as connection:
        hold_id = place_hold(connection, payee="worker-1", amount="10.00")
        for number, minutes in enumerate((5, 70)):
            release_early(
                connection,
                hold_id=hold_id,
                amount="2.50",
                reference=f"part-{number}",
                by=PAYER,
                reason="a part",
                now=NOON + timedelta(minutes=minutes),
            )

    counts = count_hours(engine, start=NOON, end=NOON + 2 * HOUR, counted_by="test")

    figures = ("holds_released", "holds_released_early", "parts_released", "released_minor", "payees")
    assert [tuple(row.get(name, 0) for name in figures) for row in rows(counts)] == [
        (0, 0, 1, 250, 1),
        (0, 0, 1, 250, 1),
    ]
    with engine.begin() as connection:
        assert differing_counts(connection, start=NOON, end=NOON + 2 * HOUR) == []
        assert len(connection.execute(select(hourly_release_count)).all()) == 2


def test_currencies_are_counted_apart(connection: Connection) -> None:
    """An hour has a row per currency, in order. A payee with two currencies has two wallets."""
    place_hold(connection, amount="10.00")
    place_hold(connection, amount="300", currency="JPY")
    release_due(connection, now=AT_RELEASE)

    counts = compute_counts(connection, start=AT_RELEASE, end=AT_RELEASE + HOUR)

    assert [(row["currency"], row["released_minor"], row["payees"]) for row in rows(counts)] == [
        ("JPY", 300, 1),
        ("PHP", 1000, 1),
    ]


def test_an_hour_begins_with_its_first_microsecond(connection: Connection) -> None:
    """The full hour belongs to the hour that begins, the microsecond before to the previous one."""
    place_hold(connection, held_at=NOON)
    place_hold(connection, held_at=NOON - timedelta(microseconds=1))

    counts = compute_counts(connection, start=NOON - HOUR, end=NOON + HOUR)

    assert [(row["hour"], row["holds_added"]) for row in rows(counts)] == [(NOON - HOUR, 1), (NOON, 1)]


def test_days_are_read_in_pieces(connection: Connection) -> None:
    """A range of several pieces has each hour once, on both sides of a piece's end."""
    chunk = counts_module.READ_SPAN
    hours = [NOON, NOON + chunk - HOUR, NOON + chunk, NOON + 3 * chunk - HOUR]
    for hour in hours:
        place_hold(connection, held_at=hour)

    counts = compute_counts(connection, start=NOON, end=NOON + 3 * chunk)

    assert [row["hour"] for row in rows(counts)] == hours


def test_a_frame_without_rows_has_its_types(connection: Connection) -> None:
    """Empty hours give the same columns and types."""
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
    """A sum never wraps around. The hour is named."""
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
"""Early releases, open freezes, and refunds with their freezes, besides scheduled releases."""
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
    """Pandas and SQL count the same figures for any hours."""
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
        release_due(connection, now=released + timedelta(hours=6))
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
    """A second count of an hour replaces its figures."""
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
    """Every wallet and every row except the report's is unchanged."""
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
    """Uncounted hours are computed, with the same result as if all were stored."""
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


def test_concurrent_counts_wait_for_each_other(engine: Engine) -> None:
    """A backfill and the schedule that count the same hours both succeed."""
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
    """The earliest by time, in any order of writing. Empty books have no first hour."""
    empty = first_hour(connection)
    place_hold(connection, held_at=NOON + timedelta(minutes=59))
    place_hold(connection, held_at=NOON + timedelta(days=3))

    place_hold(connection, held_at=NOON - timedelta(days=3))

    assert empty is None
    assert first_hour(connection) == NOON - timedelta(days=3)
