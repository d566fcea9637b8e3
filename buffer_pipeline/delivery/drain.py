"""Everything that waits, sent: claimed in one short transaction, sent outside of any, settled in another."""

import asyncio
import logging
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol, TypeVar

from psycopg.errors import QueryCanceled
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from buffer_pipeline.cancel import Cancelable
from buffer_pipeline.contact import Contact, find_contacts
from buffer_pipeline.database import database_clock
from buffer_pipeline.delivery.breaker import Breaker
from buffer_pipeline.delivery.channel import Endpoint, GiveUp, NothingToSend, Sender, TryAgain, Unavailable
from buffer_pipeline.delivery.retry import next_attempt
from buffer_pipeline.messages import Message
from buffer_pipeline.outbox import (
    Claimed,
    Notification,
    Outcome,
    Route,
    Settlement,
    claim,
    delivery_figures,
    dispatch,
    find_pauses,
    pause,
    resume,
    settle,
)

BOOKS_THREADS: Final = 4
DISPATCH_LIMIT: Final = 5_000
DISPATCH_SECONDS: Final = 1.0
"""What is written during a drain waits about so long for the endpoints that still send or send again."""
OWNERS_LIMIT: Final = 64
PER_OWNER_LIMIT: Final = 16
SETTLE_LIMIT: Final = 200
"""So many are sent and not yet settled at most, besides those under way: a crash sends them again."""
SETTLE_SECONDS: Final = 0.25
WATCH_SECONDS: Final = 0.1
LEASE_SECONDS: Final = 180.0
BOOKS_SECONDS: Final = 5.0
"""For how long a transaction may go on once a drain is to end: it may wait for a lock, or for a standby."""
LEASE_MARGIN_SECONDS: Final = 5.0
"""A send that could outlast its lease by this much is not begun."""

Clock = Callable[[Connection], datetime]
Result = TypeVar("Result")

logger: Final = logging.getLogger("buffer_pipeline.delivery")


class Renderer(Protocol):
    """Puts notifications into words."""

    def render(self, notification: Notification, contact: Contact | None) -> Message:
        """Return what a channel sends."""


@dataclass(kw_only=True)
class Tally:
    """What a drain did at one endpoint. `paused`: its receiver does not answer and was left alone.

    `lost` ones were tried, but too late: another drainer has their lease, and its outcome counts.
    """

    sent: int = 0
    retried: int = 0
    dead: int = 0
    lost: int = 0
    paused: bool = False


@dataclass(frozen=True, kw_only=True)
class Drained:
    """What a drain did, and what waits after it: undispatched, not due, or left alone."""

    sent: int
    retried: int
    dead: int
    lost: int
    waiting: int
    oldest_waiting: datetime | None
    endpoints: dict[str, Tally] = field(default_factory=dict)


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
    """Dispatch what is new and send what is due, everywhere at once, until nothing is.

    While any endpoint still sends, what is written meanwhile is dispatched too, and goes out everywhere.

    At least once, each owner's messages at an endpoint in order: what was sent and not settled is sent
    again, with the same id. Two drainers never send the same delivery at the same time. A receiver that
    fails holds back its own endpoint alone, and raises nothing. `stop` and `seconds_max` end it early,
    after what is under way: at most a channel's timeout later, and BOOKS_SECONDS for each transaction that
    waits in the books, of which there may be two before that and two after it.
    What is cancelled then was committed on the primary if it waited for a standby, and is undone otherwise.

    `after_dispatch` is told how many deliveries came to wait, `after_settle` how many were sent or given up.

    Raises:
        DBAPIError: the books do not answer; what was sent and is not settled is sent again.
    """
    ends_at = None if seconds_max is None else time.monotonic() + seconds_max

    def is_over() -> bool:
        return stop() or (ends_at is not None and time.monotonic() >= ends_at)

    tallies = {endpoint.name: Tally() for endpoint in endpoints}
    in_hand, abandoned = Cancelable(), threading.Event()
    with (
        in_hand.working_by(engine),
        _ended_in_time(in_hand, lambda: abandoned.is_set() or is_over()),
        ThreadPoolExecutor(BOOKS_THREADS, "books") as books,
    ):
        shared = _Drain(
            engine, messages, clock, is_over, books, abandoned, tallies, after_dispatch, after_settle
        )
        try:
            with suppress(_Ended):
                asyncio.run(_drain_all(shared, endpoints))
        except ExceptionGroup as failures:
            # Of tasks that run beside each other: whoever calls acts on what went wrong, not on a group.
            raise _first(failures) from None
    with engine.begin() as connection:
        figures = delivery_figures(connection)
    oldest = [each.oldest_waiting for each in figures if each.oldest_waiting is not None]
    return Drained(
        sent=sum(tally.sent for tally in tallies.values()),
        retried=sum(tally.retried for tally in tallies.values()),
        dead=sum(tally.dead for tally in tallies.values()),
        lost=sum(tally.lost for tally in tallies.values()),
        waiting=sum(each.waiting for each in figures),
        oldest_waiting=min(oldest, default=None),
        endpoints=tallies,
    )


def _first(failures: ExceptionGroup) -> Exception:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


class _Ended(Exception):
    """A transaction was cancelled because the drain must end."""


@contextmanager
def _ended_in_time(in_hand: Cancelable, is_over: Callable[[], bool]) -> Iterator[None]:
    """Cancel what has worked in the books for BOOKS_SECONDS, once the drain is over."""
    ended = threading.Event()

    def watch() -> None:
        # `stop` is polled: it raises no event.
        while not ended.wait(WATCH_SECONDS):
            if is_over():
                in_hand.cancel(after_seconds=BOOKS_SECONDS)

    watching = threading.Thread(target=watch, name="watch", daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()


@dataclass(frozen=True)
class _Drain:
    """What the endpoints of a drain share."""

    engine: Engine
    messages: Renderer
    clock: Clock
    is_over: Callable[[], bool]
    books: ThreadPoolExecutor
    """Threads for claims and settlements alone: the loop's own may all wait for a receiver's name."""
    abandoned: threading.Event
    """Set when nobody waits for what a thread does any more."""
    tallies: dict[str, Tally]
    after_dispatch: Callable[[int], None]
    after_settle: Callable[[int], None]

    async def in_books(self, work: Callable[[], Result]) -> Result:
        """Run what talks to the database beside the loop."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self.books, work)
        except asyncio.CancelledError:
            self.abandoned.set()
            raise
        except OperationalError as error:
            if self.is_over() and isinstance(error.orig, QueryCanceled):
                raise _Ended from None
            raise

    def dispatch_all(self, routes: Sequence[Route]) -> int:
        """Dispatch what is new; return how many deliveries that made."""
        deliveries = 0
        while not self.is_over():
            with self.engine.begin() as connection:
                done = dispatch(connection, routes, batch_limit=DISPATCH_LIMIT, now=self.clock(connection))
            deliveries += done.deliveries
            self.after_dispatch(done.deliveries)
            if done.notifications < DISPATCH_LIMIT:
                break
        return deliveries


async def _drain_all(shared: _Drain, endpoints: Sequence[Endpoint]) -> None:
    routes = [endpoint.route for endpoint in endpoints]
    await shared.in_books(partial(shared.dispatch_all, routes))
    company = _Company(len(endpoints))
    runs = [_EndpointDrain(shared, endpoint, company) for endpoint in endpoints]
    async with asyncio.TaskGroup() as tasks:
        for run in runs:
            tasks.create_task(run.run())
        tasks.create_task(_dispatch_in_time(shared, routes, company))


async def _dispatch_in_time(shared: _Drain, routes: Sequence[Route], company: "_Company") -> None:
    """Dispatch again and again for as long as anybody sends, and call back those who had finished."""
    with suppress(_Ended):
        while not await company.has_ended(within_seconds=DISPATCH_SECONDS) and not shared.is_over():
            if await shared.in_books(partial(shared.dispatch_all, routes)):
                company.call_back()


class _Company:
    """Who still sends. It has ended, for good, once nobody does.

    An endpoint that is left alone waits for its probe only while others send; one that found nothing due
    rests until something is dispatched, likewise.
    """

    def __init__(self, sending: int) -> None:
        self._sending = sending
        self._resting = 0
        self._changed = asyncio.Event()
        self.calls = 0
        """How often those who rest were called back."""

    def leave(self) -> None:
        """Send no more."""
        self._sending -= 1
        if self._sending == 0:
            self._tell()

    def call_back(self) -> None:
        """Count those who rest as sending again, before they know: it must not end beneath them."""
        if self._sending > 0:
            self._sending, self._resting = self._sending + self._resting, 0
            self.calls += 1
            self._tell()

    async def has_ended(self, *, within_seconds: float) -> bool:
        """Wait for the end; return whether it came."""
        ends_at = time.monotonic() + within_seconds
        while self._sending > 0 and (left := ends_at - time.monotonic()) > 0:
            await self._change(left)
        return self._sending == 0

    async def waited(self, seconds: float, is_over: Callable[[], bool]) -> bool:
        """Wait, without being counted; return False, at once, when nobody sends any more."""
        if seconds <= 0:
            return True
        self.leave()
        ends_at = time.monotonic() + seconds
        while (left := ends_at - time.monotonic()) > 0:
            if self._sending == 0 or is_over():
                return False
            await self._change(left)
        if self._sending == 0:
            return False
        self._sending += 1
        return True

    async def rested(self, calls: int, is_over: Callable[[], bool]) -> bool:
        """Wait for another call than these; return False when nobody sends any more."""
        if self.calls != calls:
            return True
        self._resting += 1
        self.leave()
        while self.calls == calls:
            if self._sending == 0 or is_over():
                self._resting -= 1
                return False
            await self._change(1.0)
        return True

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self, seconds_max: float) -> None:
        """Wait for a change, for a second at most: nobody says when a drain is over."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), min(seconds_max, 1.0))


@dataclass(frozen=True)
class _Lane:
    """What is claimed of one owner, in order, with how they are spoken to, and until when it may be sent."""

    claimed: list[Claimed]
    contact: Contact | None
    ends_at: float


@dataclass(frozen=True)
class _Result:
    """What became of one message."""

    claimed: Claimed
    outcome: Outcome
    reason: str | None = None
    after_seconds: float | None = None


class _EndpointDrain:
    """One endpoint: a claimer fills a queue with lanes, workers send them, outcomes are settled together."""

    def __init__(self, shared: _Drain, endpoint: Endpoint, company: _Company) -> None:
        self.endpoint = endpoint
        self.tally = shared.tallies[endpoint.name]
        self._shared = shared
        self._company = company
        self._breaker = Breaker()
        self._noted_open_until: float | None = None
        """Of the breaker, what stands in the books."""
        self._failure = ""
        self._lanes: asyncio.Queue[_Lane | None] = asyncio.Queue(maxsize=OWNERS_LIMIT)
        self._results: list[_Result] = []
        self._settling = asyncio.Lock()
        self._sent_all = asyncio.Event()

    async def run(self) -> None:
        """Send what is due, until nothing is."""
        async with (
            self.endpoint.channel.open(engine=self._shared.engine) as sender,
            asyncio.TaskGroup() as tasks,
        ):
            workers = [
                tasks.create_task(self._work(sender)) for _ in range(self.endpoint.options.concurrency)
            ]
            tasks.create_task(self._settle_in_time())
            # Only the claim was cancelled. Messages claimed earlier are still sent and settled.
            with suppress(_Ended):
                await self._shared.in_books(self._recall_pause)
                await self._claim_all()
            for _ in workers:
                await self._lanes.put(None)
            await asyncio.wait(workers)
            self._sent_all.set()
        await self._settle_all()

    def _recall_pause(self) -> None:
        with self._shared.engine.begin() as connection:
            now = self._shared.clock(connection)
            for found in find_pauses(connection, [self.endpoint.name]):
                left = (found.open_until - now).total_seconds()
                self._breaker.open_until = self._noted_open_until = time.monotonic() + left
                self._failure = found.reason

    async def _claim_all(self) -> None:
        """Claim lane after lane, round after round, until a round finds nothing due and nobody else sends."""
        while not self._shared.is_over():
            calls = self._company.calls
            if not self._breaker.is_closed():
                seconds = self._breaker.seconds_to_probe(now=time.monotonic())
                if not await self._company.waited(seconds, self._shared.is_over):
                    self.tally.paused = True
                    return
                found = await self._claim_once("", owners_limit=1, per_owner_limit=1, probe=True) is not None
                await self._let_all_through()
            else:
                found = await self._claim_round()
            if not found and not await self._company.rested(calls, self._shared.is_over):
                return
        self._company.leave()

    async def _claim_round(self) -> bool:
        """Go once through all owners; return whether anything was due."""
        found, after_owner = False, ""
        while not self._shared.is_over() and self._breaker.is_closed():
            last = await self._claim_once(
                after_owner, owners_limit=OWNERS_LIMIT, per_owner_limit=PER_OWNER_LIMIT
            )
            if last is None:
                break
            found, after_owner = True, last
        # The next round claims what follows in the same lanes, once these are settled.
        await self._let_all_through()
        return found

    async def _claim_once(
        self, after_owner: str, *, owners_limit: int, per_owner_limit: int, probe: bool = False
    ) -> str | None:
        """Queue lanes; return the last owner, None when nothing was due behind `after_owner`."""
        if self._breaker.open_until != self._noted_open_until:
            # What was under way may have closed it again: the books would still have it open.
            await self._settle_all()
            if self._shared.is_over():
                return None
        # By this clock, a little before the lease's own begins.
        lasts = LEASE_SECONDS - LEASE_MARGIN_SECONDS - self.endpoint.options.timeout_seconds
        ends_at = time.monotonic() + lasts
        engine, clock = self._shared.engine, self._shared.clock

        def claimed_with_contacts() -> tuple[list[Claimed], dict[str, Contact]]:
            with engine.begin() as connection:
                claimed = claim(
                    connection,
                    endpoint=self.endpoint.name,
                    owners_limit=owners_limit,
                    per_owner_limit=per_owner_limit,
                    lease_seconds=LEASE_SECONDS,
                    now=clock(connection),
                    after_owner=after_owner,
                    probe=probe,
                )
                owners = {each.notification.owner for each in claimed}
                return claimed, find_contacts(connection, owners) if owners else {}

        claimed, contacts = await self._shared.in_books(claimed_with_contacts)
        lanes: dict[str, list[Claimed]] = {}
        for each in claimed:
            lanes.setdefault(each.notification.owner, []).append(each)
        for owner, lane in lanes.items():
            await self._lanes.put(_Lane(lane, contacts.get(owner), ends_at))
        return claimed[-1].notification.owner if claimed else None

    async def _let_all_through(self) -> None:
        await self._lanes.join()
        await self._settle_all()

    async def _work(self, sender: Sender) -> None:
        while (lane := await self._lanes.get()) is not None:
            probing = self._breaker.seconds_to_probe(now=time.monotonic()) == 0
            for number, claimed in enumerate(lane.claimed):
                may_send = self._breaker.is_closed() or (probing and number == 0)
                if not may_send or self._shared.is_over() or time.monotonic() >= lane.ends_at:
                    self._give_back(lane.claimed[number:])
                    break
                result = await self._attempt(sender, claimed, lane.contact)
                self._results.append(result)
                if result.outcome is Outcome.RETRY:
                    self._give_back(lane.claimed[number + 1 :])
                    break
                if len(self._results) >= SETTLE_LIMIT:
                    await self._settle_all()
            self._lanes.task_done()

    async def _attempt(self, sender: Sender, claimed: Claimed, contact: Contact | None) -> _Result:
        """Send one message and return what became of it."""
        seconds_max = self.endpoint.options.timeout_seconds + LEASE_MARGIN_SECONDS / 2
        try:
            message = self._shared.messages.render(claimed.notification, contact)
            async with asyncio.timeout(seconds_max):
                await sender.send(message)
        except GiveUp as refusal:
            if not isinstance(refusal, NothingToSend):
                self._breaker.succeeded()
            return _Result(claimed, Outcome.DEAD, refusal.reason)
        except Unavailable as failure:
            self._failure = failure.reason
            self._breaker.failed(now=time.monotonic(), pause_seconds=failure.after_seconds)
            return _Result(claimed, Outcome.RETRY, failure.reason, failure.after_seconds)
        except TryAgain as failure:
            self._breaker.succeeded()
            return _Result(claimed, Outcome.RETRY, failure.reason, failure.after_seconds)
        except TimeoutError:
            self._failure = f"not sent within {seconds_max:g} seconds"
            self._breaker.failed(now=time.monotonic())
            return _Result(claimed, Outcome.RETRY, self._failure)
        except Exception as error:  # noqa: BLE001 - one message's fault must not hold back all the others
            # Where it was raised and not what it says: nobody knows what a channel's own error repeats,
            # a password or a URL with a token among it.
            logger.error(  # noqa: TRY400
                "notification %d at %s: %s, raised in\n%s",
                claimed.notification.notification_id,
                self.endpoint.name,
                type(error).__name__,
                "".join(traceback.format_tb(error.__traceback__)).rstrip(),
            )
            return _Result(claimed, Outcome.RETRY, f"{type(error).__name__}, a fault of the channel's own")
        self._breaker.succeeded()
        return _Result(claimed, Outcome.DELIVERED)

    def _give_back(self, unsent: Sequence[Claimed]) -> None:
        self._results.extend(_Result(claimed, Outcome.UNSENT) for claimed in unsent)

    async def _settle_in_time(self) -> None:
        while not self._sent_all.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._sent_all.wait(), SETTLE_SECONDS)
            await self._settle_all()

    async def _settle_all(self) -> None:
        """Write what became of what was sent, and of the breaker; return when all so far is written."""
        async with self._settling:
            results, self._results = self._results, []
            open_until = self._breaker.open_until
            if results or open_until != self._noted_open_until:
                try:
                    await self._shared.in_books(partial(self._settle, results, open_until))
                except _Ended:
                    # Their leases run out, and they are sent again. The workers go on, so this must too.
                    if sent := sum(result.outcome is Outcome.DELIVERED for result in results):
                        logger.warning(
                            "%s: %d sent messages could not be settled in time, and will be sent again",
                            self.endpoint.name,
                            sent,
                        )
                else:
                    self._noted_open_until = open_until

    def _note_breaker(self, connection: Connection, open_until: float | None, *, now: datetime) -> None:
        if open_until is None:
            resume(connection, self.endpoint.name)
        else:
            left = timedelta(seconds=open_until - time.monotonic())
            pause(connection, self.endpoint.name, open_until=now + left, reason=self._failure)

    def _settle(self, results: Sequence[_Result], open_until: float | None) -> None:
        with self._shared.engine.begin() as connection:
            now = self._shared.clock(connection)
            if open_until != self._noted_open_until:
                self._note_breaker(connection, open_until, now=now)
            settlements = [_settlement(result, now=now) for result in results]
            settled = settle(connection, settlements, now=now)
        tried = [each for each in settlements if each.outcome is not Outcome.UNSENT]
        outcomes = Counter(each.outcome for each in tried if each.claimed.delivery_id in settled)
        self.tally.sent += outcomes[Outcome.DELIVERED]
        self.tally.retried += outcomes[Outcome.RETRY]
        self.tally.dead += outcomes[Outcome.DEAD]
        self.tally.lost += len(tried) - outcomes.total()
        self._shared.after_settle(outcomes[Outcome.DELIVERED] + outcomes[Outcome.DEAD])


def _settlement(result: _Result, *, now: datetime) -> Settlement:
    claimed = result.claimed
    if result.outcome is not Outcome.RETRY:
        return Settlement(claimed=claimed, outcome=result.outcome, reason=result.reason)
    at = next_attempt(
        now=now,
        attempts=claimed.attempts,
        first_attempt_at=claimed.first_attempt_at,
        after_seconds=result.after_seconds,
    )
    if at is None:
        return Settlement(claimed=claimed, outcome=Outcome.DEAD, reason=result.reason)
    return Settlement(claimed=claimed, outcome=Outcome.RETRY, reason=result.reason, next_attempt_at=at)
