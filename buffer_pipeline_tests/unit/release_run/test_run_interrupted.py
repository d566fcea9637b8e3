"""A release run that is asked to stop, or that a signal ends."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, select

from buffer_pipeline.release import ReleaseBatch
from buffer_pipeline.tables import wallet
from buffer_pipeline_tests.support.builders import books, waiting_for_a_lock
from buffer_pipeline_tests.support.release_drain import drain, place_many, wait_until, workers_alive


@pytest.mark.parametrize("workers", [1, 3])
def test_run_that_is_asked_to_stop_begins_no_other_batch(engine: Engine, workers: int) -> None:
    """Committed batches stay released, the rest stays due, and the run reports that it was interrupted."""
    place_many(engine, 60, payees=6)
    batches: list[ReleaseBatch] = []

    run = drain(
        engine, workers=workers, batch_limit=5, stop=lambda: bool(batches), after_batch=batches.append
    )

    assert run.interrupted
    assert run.holds_released == 5 * run.batches
    assert 1 <= run.batches <= workers
    again = drain(engine)
    assert (again.holds_released, again.interrupted) == (60 - run.holds_released, False)


def test_run_that_has_reached_its_limit_was_not_interrupted(engine: Engine) -> None:
    """A request to stop after the work is done changes nothing."""
    place_many(engine, 10)
    batches: list[ReleaseBatch] = []

    run = drain(engine, limit=5, stop=lambda: bool(batches), after_batch=batches.append)

    assert (run.holds_released, run.interrupted) == (5, False)


class EndOfTheRun(BaseException):
    """The exception of a signal handler in the waiting thread."""


@pytest.mark.parametrize("workers", [1, 2])
def test_exception_in_the_waiting_thread_cancels_the_batches(
    engine: Engine, other: Connection, workers: int
) -> None:
    """Batches that wait for locks are cancelled and rolled back."""
    place_many(engine, 40, payees=2)
    with engine.connect() as connection:
        before = books(connection)
    other.execute(select(wallet).with_for_update())

    def end(_number: int, _frame: object) -> None:
        raise EndOfTheRun

    def interrupt() -> None:
        with engine.connect() as watcher:
            wait_until(lambda: waiting_for_a_lock(watcher) == workers, "the batches wait")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    handler = signal.signal(signal.SIGUSR1, end)
    try:
        with ThreadPoolExecutor(1) as threads:
            interrupting = threads.submit(interrupt)
            with pytest.raises(EndOfTheRun):
                drain(engine, workers=workers)
            interrupting.result()
    finally:
        signal.signal(signal.SIGUSR1, handler)

    assert workers_alive() == []
    with engine.connect() as connection:
        assert waiting_for_a_lock(connection) == 0
        assert books(connection) == before
    other.rollback()
    assert drain(engine, workers=workers).holds_released == 40
