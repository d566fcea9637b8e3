"""A server that crashes repeatedly loses and duplicates nothing."""

import random
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Semaphore
from typing import Final

import pytest
from sqlalchemy.exc import OperationalError

from buffer_pipeline.release import ReleaseBatch
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline_tests.support.builders import DAY_7, WAIT_SECONDS_MAX
from buffer_pipeline_tests.support.cluster import Cluster
from buffer_pipeline_tests.support.crasher import drain
from buffer_pipeline_tests.support.crashes import end_of, engine_on, hold_due, released, require_sound_files
from buffer_pipeline_tests.support.databases import fresh_books

STOPS: Final = 50


def test_fifty_server_crashes_during_a_drain_lose_nothing(cluster: Cluster) -> None:
    """`pg_ctl stop -m immediate` at random moments of a drain, fifty times. Reported batches are there after
    each restart, and in the end the books are as after an undisturbed release.
    """
    batch_limit, batches_max = 10, 40
    holds = STOPS * batches_max * batch_limit
    chance = random.Random(50)
    with engine_on(cluster.server.books_url.render_as_string()) as engine:
        hold_due(engine, holds, wallets=50)
    with fresh_books(cluster.server) as url, engine_on(url) as engine:
        # A copy, because the server's own books are the template.
        drain(engine)
        undisturbed = end_of(engine)
    reported: list[int] = []

    with engine_on(cluster.server.books_url.render_as_string()) as engine, ThreadPoolExecutor(1) as threads:
        for _ in range(STOPS):
            wanted, come = chance.randrange(1, 8), Event()
            permits = Semaphore(batches_max)
            begun = len(reported)

            def after_batch(
                batch: ReleaseBatch,
                wanted: int = wanted + begun,
                come: Event = come,
                permits: Semaphore = permits,
            ) -> None:
                reported.append(batch.holds_released)
                if len(reported) >= wanted:
                    come.set()
                # On a fast machine, work must be left for the next stop.
                permits.acquire()

            running = threads.submit(
                release_all_due,
                engine,
                due_by=DAY_7,
                source="a test",
                batch_limit=batch_limit,
                clock=lambda _connection: DAY_7,
                after_batch=after_batch,
            )
            assert come.wait(timeout=WAIT_SECONDS_MAX)
            cluster.stop("immediate")
            permits.release(holds)
            with pytest.raises(OperationalError):
                running.result(timeout=WAIT_SECONDS_MAX)
            cluster.start()
            # At most one batch was committed but not reported.
            assert sum(reported) <= released(engine) <= sum(reported) + batch_limit
            reported[-1:] = [reported[-1] + released(engine) - sum(reported)]
        left = holds - sum(reported)

        drain(engine)

        assert left > 0
        assert end_of(engine) == undisturbed
    require_sound_files(cluster, "buffer")
