"""Verbs on connections of their own that begin each step together."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import TypeAlias

from sqlalchemy import Connection, Engine

from buffer_pipeline_tests.support.builders import WAIT_SECONDS_MAX
from buffer_pipeline_tests.support.ends import Answer

Step: TypeAlias = Callable[[Connection], Answer]


def in_step(engine: Engine, *sides: Iterable[Step]) -> list[list[Answer]]:
    """Run each side's steps on its own connection. All sides start each step together."""
    barrier = Barrier(len(sides))

    def run(steps: Iterable[Step]) -> list[Answer]:
        answers = []
        try:
            with engine.connect() as connection:
                for step in steps:
                    barrier.wait(timeout=WAIT_SECONDS_MAX)
                    answers.append(step(connection))
        except BaseException:
            barrier.abort()
            raise
        return answers

    with ThreadPoolExecutor(len(sides)) as threads:
        running = [threads.submit(run, steps) for steps in sides]
    for error in (future.exception() for future in running):
        # Raise the error that broke the barrier, not the broken barrier.
        if error is not None and not isinstance(error, BrokenBarrierError):
            raise error
    return [future.result() for future in running]
