"""A release run makes its batches as long as locks may last."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, event

from buffer_pipeline.release import ReleaseBatch
from buffer_pipeline.release_run.batch_size import LOCK_SECONDS_AIM
from buffer_pipeline_tests.support.release_drain import drain, place_many


@dataclass
class Stopwatch:
    """A monotonic clock that advances only when it is moved."""

    seconds: float = 0.0


def sizes_of(engine: Engine, watch: Stopwatch, **changes: Any) -> list[int]:
    """Drain with the stopwatch and return the number of holds of each batch."""
    sizes: list[int] = []
    drain(
        engine,
        monotonic=lambda: watch.seconds,
        after_batch=lambda released: sizes.append(released.holds_released),
        **changes,
    )
    return sizes


def test_batch_size_converges_to_the_target(engine: Engine) -> None:
    """On a server that settles 500 holds in the target time, batches get 500 holds."""
    place_many(engine, 2_300)
    watch = Stopwatch()

    def work(_connection: Connection, released: ReleaseBatch) -> None:
        # Half a hold less, to be independent of rounding in the sum of seconds.
        watch.seconds += LOCK_SECONDS_AIM * released.holds_released / 500.5

    assert sizes_of(engine, watch, on_batch=work) == [1_000, 500, 500, 300]


def test_run_on_a_fast_server_grows_to_its_limit(engine: Engine) -> None:
    """If batches take no time, they double up to `batch_limit`."""
    place_many(engine, 5_000)

    assert sizes_of(engine, Stopwatch(), batch_limit=1_700) == [1_000, 1_700, 1_700, 600]


def test_commit_counts_as_lock_time(engine: Engine) -> None:
    """Locks last until the commit returns, so a slow commit makes batches smaller."""
    place_many(engine, 1_500)
    watch = Stopwatch()

    @event.listens_for(engine, "commit")
    def wait_for_the_disk(_connection: Connection) -> None:
        watch.seconds += 4 * LOCK_SECONDS_AIM

    assert sizes_of(engine, watch)[:2] == [1_000, 200]
