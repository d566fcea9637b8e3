"""The size of a batch follows the time that its locks may last."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buffer_pipeline.release_run.batch_size import FIRST_BATCH, LOCK_SECONDS_AIM, SMALLEST_BATCH, BatchSize


def test_first_batch_is_small() -> None:
    """The server's speed is unknown. A smaller limit applies from the beginning."""
    assert BatchSize.first(batch_limit=20_000).holds == FIRST_BATCH
    assert BatchSize.first(batch_limit=50).holds == 50


@pytest.mark.parametrize(
    ("holds_released", "lock_seconds", "next_holds"),
    [
        (4_000, 0.0, 8_000),
        (4_000, LOCK_SECONDS_AIM / 4, 8_000),
        (4_000, LOCK_SECONDS_AIM / 1.25, 5_000),
        (4_000, LOCK_SECONDS_AIM, 4_000),
        (4_000, LOCK_SECONDS_AIM * 2, 2_000),
        (4_000, LOCK_SECONDS_AIM * 1_000, SMALLEST_BATCH),
        (3_600, LOCK_SECONDS_AIM / 4, 8_000),
        (3_599, LOCK_SECONDS_AIM / 4, 4_000),
        (400, LOCK_SECONDS_AIM / 4, 4_000),
        (400, LOCK_SECONDS_AIM * 2, 200),
    ],
    ids=[
        "at-once",
        "fast",
        "nearly",
        "exactly",
        "slow",
        "waited",
        "nearly-full",
        "not-quite",
        "not-full",
        "not-full-slow",
    ],
)
def test_batch_size_follows_the_duration_of_the_previous_batch(
    holds_released: int, lock_seconds: float, next_holds: int
) -> None:
    """Above the target, the next batch shrinks in proportion at once. Below it, a full batch lets it grow, at
    most to twice the size.
    """
    size = BatchSize(holds=4_000, batch_limit=20_000)

    after = size.after(holds_asked=size.holds, holds_released=holds_released, lock_seconds=lock_seconds)

    assert after == BatchSize(holds=next_holds, batch_limit=20_000)


@given(
    holds=st.integers(1, 50_000),
    batch_limit=st.integers(1, 50_000),
    lock_seconds=st.floats(0, 1e6),
    share=st.floats(0, 1),
)
def test_batch_size_keeps_its_bounds(holds: int, batch_limit: int, lock_seconds: float, share: float) -> None:
    """After any duration, the next batch has 1 to `batch_limit` holds and, if possible, SMALLEST_BATCH. It at
    most doubles, and does not grow after a slow batch.
    """
    size = BatchSize(holds=min(holds, batch_limit), batch_limit=batch_limit)

    after = size.after(
        holds_asked=size.holds, holds_released=int(size.holds * share), lock_seconds=lock_seconds
    ).holds

    smallest = min(SMALLEST_BATCH, batch_limit)
    assert min(smallest, size.holds) <= after <= batch_limit
    assert after <= max(smallest, size.holds * (1 if lock_seconds > LOCK_SECONDS_AIM else 2))


def test_batch_size_recovers_from_a_wait() -> None:
    """One batch that waited a minute for a lock is followed by seven small ones, not a whole run of them."""
    size = BatchSize(holds=8_000, batch_limit=20_000)
    sizes = [size := size.after(holds_asked=8_000, holds_released=8_000, lock_seconds=60)]

    sizes += [
        size := size.after(
            holds_asked=size.holds,
            holds_released=size.holds,
            lock_seconds=LOCK_SECONDS_AIM * size.holds / 8_000,
        )
        for _ in range(8)
    ]

    assert [one.holds for one in sizes] == [100, 200, 400, 800, 1_600, 3_200, 6_400, 8_000, 8_000]
