"""A batch has as many holds as its locks may last."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buffer_pipeline.batch_size import FIRST_BATCH, LOCK_SECONDS_AIM, SMALLEST_BATCH, BatchSize


def test_first_batch_is_small() -> None:
    """Nothing is known of the server yet; a smaller limit holds from the beginning."""
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
def test_batch_is_sized_by_what_the_one_before_it_took(
    holds_released: int, lock_seconds: float, next_holds: int
) -> None:
    """Over what is aimed at the next batch shrinks at once in proportion; under it a full one lets it grow,
    to twice the size at most.
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
    """Whatever a batch took, the next one has 1 to `batch_limit` holds, SMALLEST_BATCH where that
    allows it, and not more than twice as many or, behind a slow one, not more at all.
    """
    size = BatchSize(holds=min(holds, batch_limit), batch_limit=batch_limit)

    after = size.after(
        holds_asked=size.holds, holds_released=int(size.holds * share), lock_seconds=lock_seconds
    ).holds

    smallest = min(SMALLEST_BATCH, batch_limit)
    assert min(smallest, size.holds) <= after <= batch_limit
    assert after <= max(smallest, size.holds * (1 if lock_seconds > LOCK_SECONDS_AIM else 2))


def test_batch_size_recovers_from_a_wait() -> None:
    """One batch that waited a minute for another's lock costs seven small ones, not the whole run."""
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
