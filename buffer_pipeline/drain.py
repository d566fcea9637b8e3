"""A release run: batch after batch until nothing that was due is left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.hours import clock_of_a_writer
from buffer_pipeline.release import ReleaseBatch, ReleasePosition, release_matured

BATCH_LIMIT: Final = 20_000
"""Holds in one transaction: about a second of locks, and wallets that are changed once for many."""

_DEADLOCK_OR_CONFLICT: Final = {"40P01", "40001"}


@dataclass
class ReleaseRun:
    """What a run has released so far. `amounts_minor` is minor units by currency."""

    due_by: datetime
    dry_run: bool
    holds_released: int = 0
    amounts_minor: dict[str, int] = field(default_factory=dict)
    batches: int = 0

    def add(self, batch: ReleaseBatch) -> None:
        """Count one batch in."""
        self.batches += 1
        self.holds_released += batch.holds_released
        for currency, amount_minor in batch.amounts_minor.items():
            self.amounts_minor[currency] = self.amounts_minor.get(currency, 0) + amount_minor


def drain_matured(
    engine: Engine,
    *,
    due_by: datetime,
    source: str,
    batch_limit: int = BATCH_LIMIT,
    limit: int | None = None,
    dry_run: bool = False,
    clock: Callable[[Connection], datetime] = clock_of_a_writer,
    on_batch: Callable[[Connection, ReleaseBatch], None] | None = None,
    after_batch: Callable[[ReleaseBatch], None] | None = None,
) -> ReleaseRun:
    """Release all that is due by `due_by`, each batch in a transaction of its own.

    `limit` ends the run after so many holds. A dry run runs the same statements and
    rolls each batch back. `clock` gives each batch the time that the books record.
    `on_batch` is called inside the batch's transaction, `after_batch` behind its end. Cut
    short at any point, what is committed is released and the rest is still due.

    Raises:
        InvalidInput: a limit below 1.
    """
    if batch_limit < 1:
        raise InvalidInput(f"batch_limit {batch_limit}: must be at least 1")
    if limit is not None and limit < 1:
        raise InvalidInput(f"limit {limit}: must be at least 1")
    run = ReleaseRun(due_by=due_by, dry_run=dry_run)
    begin = partial(_rolled_back, engine) if dry_run else engine.begin
    released_in_pass = True
    while released_in_pass:
        # A pass leaves out what others had locked; the next one looks at it again.
        released_in_pass = False
        position: ReleasePosition | None = ReleasePosition()
        while position is not None:
            room = batch_limit if limit is None else min(batch_limit, limit - run.holds_released)
            if room == 0:
                return run
            for attempt in _retrying():
                with attempt, begin() as connection:
                    batch = release_matured(
                        connection,
                        now=clock(connection),
                        due_by=due_by,
                        batch_limit=room,
                        after=position,
                        source=source,
                    )
                    if batch.holds_released and on_batch is not None:
                        on_batch(connection, batch)
            position = batch.position
            if batch.holds_released:
                # What a dry run has rolled back would be there again.
                released_in_pass = not dry_run
                run.add(batch)
                if after_batch is not None:
                    after_batch(batch)
    return run


@contextmanager
def _rolled_back(engine: Engine) -> Iterator[Connection]:
    # Batch by batch, so that a dry run keeps no hold from a real one for longer than a batch does.
    with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()


def _retrying() -> Retrying:
    # A platform's transaction may hold wallets in another order than ours; the database then
    # ends one of the two. A batch that was ended wrote nothing.
    return Retrying(
        retry=retry_if_exception(
            lambda error: (
                isinstance(error, OperationalError)
                and getattr(error.orig, "sqlstate", None) in _DEADLOCK_OR_CONFLICT
            )
        ),
        stop=stop_after_attempt(5),
        wait=wait_random_exponential(multiplier=0.05, max=1),
        reraise=True,
    )
