"""The drain of one endpoint: claimed in one transaction, sent outside any, settled in another."""

import asyncio
import logging
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from sqlalchemy import Connection

from buffer_pipeline.notifications.breaker import Breaker
from buffer_pipeline.notifications.channels.channel import (
    Endpoint,
    GiveUp,
    NothingToSend,
    Sender,
    TryAgain,
    Unavailable,
)
from buffer_pipeline.notifications.contact import Contact, find_contacts
from buffer_pipeline.notifications.drain_context import DrainContext, DrainEnded
from buffer_pipeline.notifications.outbox import (
    Claimed,
    Outcome,
    Settlement,
    claim,
    find_pauses,
    pause,
    resume,
    settle,
)
from buffer_pipeline.notifications.retry import next_attempt

OWNERS_LIMIT: Final = 64
"""How many lanes one claim takes at most."""
PER_OWNER_LIMIT: Final = 16
"""How many deliveries one claim takes of a lane at most."""
SETTLE_LIMIT: Final = 200
"""At most so many messages are sent and not yet settled, besides those that are being sent: after a crash
they are sent again."""
SETTLE_SECONDS: Final = 0.25
LEASE_SECONDS: Final = 180.0
LEASE_MARGIN_SECONDS: Final = 5.0
"""A send must be able to end this long before its lease does; otherwise it is not begun."""

logger: Final = logging.getLogger("buffer_pipeline.delivery")


@dataclass(kw_only=True)
class EndpointCounts:
    """What a drain did at one endpoint, in deliveries.

    `lost` ones were tried, but too late: another drain has their lease, and its outcome counts.
    `paused`: the receiver does not answer, and the drain ended before it was tried again.
    """

    sent: int = 0
    retried: int = 0
    dead: int = 0
    lost: int = 0
    paused: bool = False


@dataclass(frozen=True)
class _Lane:
    """The claimed deliveries of one owner, in order, with the owner's contact.

    None of them is sent after `ends_at`, on the monotonic clock.
    """

    claimed: list[Claimed]
    contact: Contact | None
    ends_at: float


@dataclass(frozen=True)
class _Result:
    """The outcome of one claimed delivery."""

    claimed: Claimed
    outcome: Outcome
    reason: str | None = None
    after_seconds: float | None = None


class EndpointDrain:
    """The drain of one endpoint.

    One task claims lanes and puts them into a queue. Workers take lanes from it and send them. Outcomes are
    settled together.
    """

    def __init__(self, context: DrainContext, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.counts = EndpointCounts()
        self._context = context
        self._breaker = Breaker()
        self._stored_open_until: float | None = None
        """The breaker's `open_until` as it is in the database."""
        self._failure = ""
        self._lanes: asyncio.Queue[_Lane | None] = asyncio.Queue(maxsize=OWNERS_LIMIT)
        self._results: list[_Result] = []
        self._settling = asyncio.Lock()
        self._sent_all = asyncio.Event()

    async def run(self) -> None:
        """Send what is due, until nothing is due here and no other endpoint sends, or the drain must end."""
        async with (
            self.endpoint.channel.open(engine=self._context.engine) as sender,
            asyncio.TaskGroup() as tasks,
        ):
            workers = [
                tasks.create_task(self._work(sender)) for _ in range(self.endpoint.options.concurrency)
            ]
            tasks.create_task(self._settle_regularly())
            # Only a claim was cancelled. Messages that were claimed before are still sent and settled.
            with suppress(DrainEnded):
                await self._context.in_database_thread(self._read_pause)
                await self._claim_all()
            self._context.activity.sending.discard(self.endpoint.name)
            for _ in workers:
                await self._lanes.put(None)
            await asyncio.wait(workers)
            self._sent_all.set()
        await self._settle_all()

    # ---- claims

    def _read_pause(self) -> None:
        with self._context.engine.begin() as connection:
            now = self._context.clock(connection)
            for found in find_pauses(connection, [self.endpoint.name]):
                left = (found.open_until - now).total_seconds()
                self._breaker.open_until = self._stored_open_until = time.monotonic() + left
                self._failure = found.reason

    async def _claim_all(self) -> None:
        """Claim in rounds. After a round that finds nothing, wait for a dispatch."""
        activity, name = self._context.activity, self.endpoint.name
        while not self._context.is_over():
            dispatches = activity.dispatches
            if self._breaker.is_closed():
                found = await self._claim_round()
            else:
                seconds = self._breaker.seconds_to_probe(now=time.monotonic())
                if not await activity.wait_for_probe(name, seconds=seconds):
                    self.counts.paused = True
                    return
                found = await self._claim_once("", owners_limit=1, per_owner_limit=1, probe=True) is not None
                await self._finish_lanes()
            if not found and not await activity.wait_for_dispatch(name, after=dispatches):
                return

    async def _claim_round(self) -> bool:
        """Claim from every owner once; return whether anything was due."""
        found, after_owner = False, ""
        while not self._context.is_over() and self._breaker.is_closed():
            last = await self._claim_once(
                after_owner, owners_limit=OWNERS_LIMIT, per_owner_limit=PER_OWNER_LIMIT
            )
            if last is None:
                break
            found, after_owner = True, last
        # The next round claims later deliveries of the same lanes. It can do so only after these are settled.
        await self._finish_lanes()
        return found

    async def _claim_once(
        self, after_owner: str, *, owners_limit: int, per_owner_limit: int, probe: bool = False
    ) -> str | None:
        """Claim lanes into the queue; return the last owner, None if nothing is due after `after_owner`."""
        if self._breaker.open_until != self._stored_open_until:
            # The breaker may be closed again. A claim finds nothing while the database still has its pause.
            await self._settle_all()
            if self._context.is_over():
                return None
        # Computed before the claim, so the lease itself ends a little later.
        seconds_max = LEASE_SECONDS - LEASE_MARGIN_SECONDS - self.endpoint.options.timeout_seconds
        ends_at = time.monotonic() + seconds_max
        engine, clock = self._context.engine, self._context.clock

        def claim_with_contacts() -> tuple[list[Claimed], dict[str, Contact]]:
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

        claimed, contacts = await self._context.in_database_thread(claim_with_contacts)
        lanes: dict[str, list[Claimed]] = {}
        for each in claimed:
            lanes.setdefault(each.notification.owner, []).append(each)
        for owner, lane in lanes.items():
            await self._lanes.put(_Lane(lane, contacts.get(owner), ends_at))
        return claimed[-1].notification.owner if claimed else None

    async def _finish_lanes(self) -> None:
        """Wait until every lane in the queue is sent and settled."""
        await self._lanes.join()
        await self._settle_all()

    # ---- sends

    async def _work(self, sender: Sender) -> None:
        while (lane := await self._lanes.get()) is not None:
            probing = self._breaker.seconds_to_probe(now=time.monotonic()) == 0
            for number, claimed in enumerate(lane.claimed):
                may_send = self._breaker.is_closed() or (probing and number == 0)
                if not may_send or self._context.is_over() or time.monotonic() >= lane.ends_at:
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
        """Send one message and return its outcome."""
        seconds_max = self.endpoint.options.timeout_seconds + LEASE_MARGIN_SECONDS / 2
        try:
            message = self._context.messages.render(claimed.notification, contact)
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
        except Exception as error:  # noqa: BLE001 - an error in one message must not stop the others
            # Logged without the error's own text, which may contain a password or a URL with a token.
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

    # ---- settlements

    async def _settle_regularly(self) -> None:
        while not self._sent_all.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._sent_all.wait(), SETTLE_SECONDS)
            await self._settle_all()

    async def _settle_all(self) -> None:
        """Write the outcomes so far, and the breaker's state; return when they are written."""
        async with self._settling:
            results, self._results = self._results, []
            open_until = self._breaker.open_until
            if results or open_until != self._stored_open_until:
                try:
                    await self._context.in_database_thread(partial(self._settle, results, open_until))
                except DrainEnded:
                    # Their leases run out, and they are sent again. The workers must be able to go on, so
                    # this raises nothing.
                    if sent := sum(result.outcome is Outcome.DELIVERED for result in results):
                        logger.warning(
                            "%s: %d sent messages could not be settled in time, and will be sent again",
                            self.endpoint.name,
                            sent,
                        )
                else:
                    self._stored_open_until = open_until

    def _settle(self, results: Sequence[_Result], open_until: float | None) -> None:
        with self._context.engine.begin() as connection:
            now = self._context.clock(connection)
            if open_until != self._stored_open_until:
                self._store_breaker(connection, open_until, now=now)
            settlements = [_settlement(result, now=now) for result in results]
            settled = settle(connection, settlements, now=now)
        tried = [each for each in settlements if each.outcome is not Outcome.UNSENT]
        outcomes = Counter(each.outcome for each in tried if each.claimed.delivery_id in settled)
        self.counts.sent += outcomes[Outcome.DELIVERED]
        self.counts.retried += outcomes[Outcome.RETRY]
        self.counts.dead += outcomes[Outcome.DEAD]
        self.counts.lost += len(tried) - outcomes.total()
        self._context.after_settle(outcomes[Outcome.DELIVERED] + outcomes[Outcome.DEAD])

    def _store_breaker(self, connection: Connection, open_until: float | None, *, now: datetime) -> None:
        if open_until is None:
            resume(connection, self.endpoint.name)
        else:
            left = timedelta(seconds=open_until - time.monotonic())
            pause(connection, self.endpoint.name, open_until=now + left, reason=self._failure)


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
