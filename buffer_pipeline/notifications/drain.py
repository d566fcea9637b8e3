"""Send the notifications that wait, to every endpoint."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

from sqlalchemy import Engine

from buffer_pipeline.cancel import Cancelable
from buffer_pipeline.database import database_clock
from buffer_pipeline.notifications.channels.channel import Endpoint
from buffer_pipeline.notifications.drain_context import (
    WATCH_SECONDS,
    Activity,
    Clock,
    DrainContext,
    DrainEnded,
    Renderer,
)
from buffer_pipeline.notifications.endpoint_drain import EndpointCounts, EndpointDrain
from buffer_pipeline.notifications.outbox import Route, delivery_figures, dispatch

DATABASE_THREADS: Final = 4
DISPATCH_LIMIT: Final = 5_000
DISPATCH_SECONDS: Final = 1.0
"""How often a drain dispatches what was written since it began."""
DATABASE_SECONDS_MAX: Final = 5.0
"""How long a transaction may take once the drain must end: it may wait for a lock or for a standby."""


@dataclass(frozen=True, kw_only=True)
class Drained:
    """What a drain did, and what waits after it: not dispatched, not due, or at a paused endpoint."""

    sent: int
    retried: int
    dead: int
    lost: int
    waiting: int
    oldest_waiting: datetime | None
    endpoints: dict[str, EndpointCounts] = field(default_factory=dict)


def drain(
    engine: Engine,
    endpoints: Sequence[Endpoint],
    messages: Renderer,
    *,
    clock: Clock = database_clock,
    stop: Callable[[], bool] = lambda: False,
    seconds_max: float | None = None,
    after_dispatch: Callable[[int], None] = lambda _deliveries: None,
    after_settle: Callable[[int], None] = lambda _deliveries: None,
) -> Drained:
    """Dispatch what is new and send what is due, to all endpoints at the same time, until nothing is due.

    While any endpoint still sends, notifications that are written meanwhile are dispatched too, and are
    sent to every endpoint.

    Delivery is at least once: a message that was sent and could not be settled is sent again, with the same
    id. Each owner's messages arrive at an endpoint in order. Two drains never send the same delivery at the
    same time. A receiver that fails delays only its own endpoint, and raises nothing.

    `stop` and `seconds_max` end the drain early, after what is under way. That takes at most a channel's
    timeout, and DATABASE_SECONDS_MAX for each transaction that waits in the database. There may be two such
    transactions before the last send ends, and two after it. A transaction that is cancelled is rolled
    back, except a commit that waits for a synchronous standby: it is committed on the primary.

    `after_dispatch` is called with the number of deliveries that were dispatched, `after_settle` with the
    number that were sent or given up.

    Raises:
        DBAPIError: the database does not answer; messages that were sent and not settled are sent again.
    """
    ends_at = None if seconds_max is None else time.monotonic() + seconds_max

    def is_over() -> bool:
        return stop() or (ends_at is not None and time.monotonic() >= ends_at)

    at_work, abandoned = Cancelable(), threading.Event()
    with (
        at_work.working_by(engine),
        _cancelled_in_time(at_work, lambda: abandoned.is_set() or is_over()),
        ThreadPoolExecutor(DATABASE_THREADS, "database") as threads,
    ):
        context = DrainContext(
            engine=engine,
            messages=messages,
            clock=clock,
            is_over=is_over,
            activity=Activity((endpoint.name for endpoint in endpoints), is_over=is_over),
            database_threads=threads,
            abandoned=abandoned,
            after_settle=after_settle,
        )
        drains = [EndpointDrain(context, endpoint) for endpoint in endpoints]
        try:
            with suppress(DrainEnded):
                asyncio.run(_drain_all(context, drains, after_dispatch))
        except ExceptionGroup as failures:
            # The caller expects an error, not a group of errors from several tasks.
            raise _first(failures) from None
    with engine.begin() as connection:
        figures = delivery_figures(connection)
    counts_by_endpoint = {each.endpoint.name: each.counts for each in drains}
    oldest = [each.oldest_waiting for each in figures if each.oldest_waiting is not None]
    return Drained(
        sent=sum(counts.sent for counts in counts_by_endpoint.values()),
        retried=sum(counts.retried for counts in counts_by_endpoint.values()),
        dead=sum(counts.dead for counts in counts_by_endpoint.values()),
        lost=sum(counts.lost for counts in counts_by_endpoint.values()),
        waiting=sum(each.waiting for each in figures),
        oldest_waiting=min(oldest, default=None),
        endpoints=counts_by_endpoint,
    )


def _first(failures: ExceptionGroup) -> Exception:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


@contextmanager
def _cancelled_in_time(at_work: Cancelable, must_end: Callable[[], bool]) -> Iterator[None]:
    """Once the drain must end, cancel each transaction that takes longer than DATABASE_SECONDS_MAX."""
    ended = threading.Event()

    def watch() -> None:
        # `stop` is a function, so it is polled.
        while not ended.wait(WATCH_SECONDS):
            if must_end():
                at_work.cancel(after_seconds=DATABASE_SECONDS_MAX)

    watching = threading.Thread(target=watch, name="watch", daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()


async def _drain_all(
    context: DrainContext, drains: Sequence[EndpointDrain], after_dispatch: Callable[[int], None]
) -> None:
    """Dispatch, then drain every endpoint at the same time, and dispatch again while any of them sends."""
    dispatch_all = partial(_dispatch_all, context, [each.endpoint.route for each in drains], after_dispatch)
    await context.in_database_thread(dispatch_all)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(each.run()) for each in drains]
        with suppress(DrainEnded):
            while context.activity.sending and not context.is_over():
                # Ends early when all endpoints have ended, so the drain does not wait for the next dispatch.
                await asyncio.wait(running, timeout=DISPATCH_SECONDS)
                if not context.activity.sending:
                    break
                deliveries = await context.in_database_thread(dispatch_all)
                if deliveries:
                    context.activity.note_dispatch()


def _dispatch_all(
    context: DrainContext, routes: Sequence[Route], after_dispatch: Callable[[int], None]
) -> int:
    """Dispatch what is new; return how many deliveries that made."""
    deliveries = 0
    while not context.is_over():
        with context.engine.begin() as connection:
            done = dispatch(connection, routes, batch_limit=DISPATCH_LIMIT, now=context.clock(connection))
        deliveries += done.deliveries
        after_dispatch(done.deliveries)
        if done.notifications < DISPATCH_LIMIT:
            break
    return deliveries
