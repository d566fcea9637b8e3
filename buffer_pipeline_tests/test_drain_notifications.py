"""Draining: at least once, in order, one's fault not another's, three days of failures, SIGKILL."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ClassVar

import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import Connection, Engine, select, text
from werkzeug import Request, Response

from buffer_pipeline.database import database_clock
from buffer_pipeline.delivery.breaker import Breaker
from buffer_pipeline.delivery.channel import (
    ChannelOptions,
    Endpoint,
    GiveUp,
    NothingToSend,
    TryAgain,
    Unavailable,
    make_endpoint,
)
from buffer_pipeline.delivery.drain import LEASE_SECONDS, OWNERS_LIMIT, Drained, Tally, drain
from buffer_pipeline.messages import Message, Messages
from buffer_pipeline.outbox import (
    DeliveryState,
    Outcome,
    Settlement,
    claim,
    find_pauses,
    list_deliveries,
    replay,
    settle,
    to_send,
)
from buffer_pipeline.settings import EndpointSetting
from buffer_pipeline.tables import delivery
from buffer_pipeline_tests.builders import WAIT_SECONDS_MAX, place_hold
from buffer_pipeline_tests.conftest import NOON
from buffer_pipeline_tests.stack import wait_for

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGES = Messages()
OPEN_TRANSACTIONS = """SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
      AND backend_type = 'client backend'"""

LEASED = "SELECT count(*) FROM buffer.delivery WHERE lease IS NOT NULL"
WAITING_FOR_LOCKS = """SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'"""


@dataclass
class Recorder:
    """A channel in process: what it does with a message, and what it got, in order."""

    answer: Callable[[Message], Awaitable[None]] | None = None
    got: list[tuple[str, int]] = field(default_factory=list)

    Options: ClassVar[type[ChannelOptions]] = ChannelOptions
    needs_address: ClassVar[bool] = False

    @asynccontextmanager
    async def open(self, *, engine: Engine) -> AsyncIterator["Recorder"]:  # noqa: ARG002
        """Yield itself."""
        yield self

    async def send(self, message: Message) -> None:
        """Answer, and note what was taken."""
        if self.answer is not None:
            await self.answer(message)
        self.got.append((message.owner, message.notification_id))


def endpoint(channel: Any, name: str = "backend", **options: Any) -> Endpoint:
    """Return an endpoint of a channel in process."""
    return Endpoint(name=name, channel=channel, options=ChannelOptions(**options))


def webhook(url: str, name: str = "backend", **options: Any) -> Endpoint:
    """Return a webhook endpoint to a local receiver."""
    return make_endpoint(
        EndpointSetting(
            **{
                "name": name,
                "channel": "webhook",
                "url": url,
                "secrets": [SECRET],
                "allow_private": True,
                **options,
            }
        )
    )


def notify(engine: Engine, *owners: str) -> None:
    """Write a notification for each owner in turn."""
    with engine.begin() as connection:
        for owner in owners:
            place_hold(connection, payee=owner)


def at(moment: datetime) -> Callable[[Connection], datetime]:
    """Return a clock that stands still."""
    return lambda _: moment


def states(engine: Engine, endpoint_name: str = "backend") -> dict[str, int]:
    """Return state -> how many deliveries."""
    with engine.connect() as connection:
        return Counter(
            connection.scalars(select(delivery.c.state).where(delivery.c.endpoint == endpoint_name))
        )


def attempts(engine: Engine) -> list[int]:
    """Return the attempts of each delivery, the oldest first."""
    with engine.connect() as connection:
        return list(connection.scalars(select(delivery.c.attempts).order_by(delivery.c.delivery_id)))


# ---- what is sent


def test_everything_is_sent_once_and_in_order(engine: Engine) -> None:
    """Each owner's messages arrive in the order in which they were written, over many claims."""
    owners = [f"worker-{number % 7}" for number in range(300)]
    notify(engine, *owners)
    channel = Recorder()

    first = drain(engine, [endpoint(channel, concurrency=5)], MESSAGES)
    second = drain(engine, [endpoint(channel, concurrency=5)], MESSAGES)

    assert (first.sent, first.retried, first.dead, first.waiting, first.oldest_waiting) == (
        300,
        0,
        0,
        0,
        None,
    )
    assert second.sent == 0
    assert len(set(channel.got)) == len(channel.got) == 300
    for owner in set(owners):
        ids = [id_ for each, id_ in channel.got if each == owner]
        assert ids == sorted(ids)
    assert states(engine) == {"DELIVERED": 300}


def test_two_drainers_share_what_waits(engine: Engine) -> None:
    """Side by side they send each message once, and never two of one owner at the same time."""
    notify(engine, *[f"worker-{number % 40}" for number in range(400)])
    sending: set[str] = set()
    overlaps: list[str] = []
    guard = threading.Lock()

    async def slowly(message: Message) -> None:
        with guard:
            if message.owner in sending:
                overlaps.append(message.owner)
            sending.add(message.owner)
        await asyncio.sleep(0.002)
        with guard:
            sending.discard(message.owner)

    channel = Recorder(slowly)
    drained: list[Drained] = []
    threads = [
        threading.Thread(target=lambda: drained.append(drain(engine, [endpoint(channel)], MESSAGES)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(each.sent for each in drained) == 400
    assert len(set(channel.got)) == len(channel.got) == 400
    assert overlaps == []


def test_nothing_is_sent_inside_a_transaction(engine: Engine) -> None:
    """While a message is under way, there comes a moment without any transaction in the books."""
    notify(engine, "worker-17")
    deadline = time.monotonic() + WAIT_SECONDS_MAX

    async def wait_for_no_transaction(_: Message) -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while connection.exec_driver_sql(OPEN_TRANSACTIONS).scalar_one():
                if time.monotonic() > deadline:
                    raise GiveUp("a transaction is open for as long as the message is under way")
                await asyncio.sleep(0.01)

    drained = drain(engine, [endpoint(Recorder(wait_for_no_transaction), timeout_seconds=30)], MESSAGES)

    assert (drained.sent, drained.dead) == (1, 0)


def test_first_that_fails_holds_back_what_follows_for_its_owner(engine: Engine) -> None:
    """The rest of the lane is let go untried; other owners are not held."""
    notify(engine, "worker-17", "worker-17", "worker-18")

    async def refuse(message: Message) -> None:
        if message.owner == "worker-17":
            raise TryAgain("greylisted")

    channel = Recorder(refuse)
    drained = drain(engine, [endpoint(channel)], MESSAGES, clock=at(NOON))

    assert (drained.sent, drained.retried, drained.waiting) == (1, 1, 2)
    assert attempts(engine) == [1, 0, 1]
    assert drained.oldest_waiting == NOON
    channel.answer = None
    assert drain(engine, [endpoint(channel)], MESSAGES, clock=at(NOON + timedelta(seconds=11))).sent == 2
    assert [owner for owner, _ in channel.got] == ["worker-18", "worker-17", "worker-17"]


def test_refused_for_good_is_dead_with_its_reason(engine: Engine) -> None:
    """What the receiver will never take is given up at once, and what follows it is sent."""
    notify(engine, "worker-17", "worker-17")
    first: list[int] = []

    async def refuse_first(message: Message) -> None:
        if not first:
            first.append(message.notification_id)
            raise GiveUp("HTTP 422: no such worker")

    drained = drain(engine, [endpoint(Recorder(refuse_first))], MESSAGES)

    assert (drained.sent, drained.dead) == (1, 1)
    with engine.connect() as connection:
        dead = list_deliveries(connection, state=DeliveryState.DEAD)
    assert [(each.notification_id, each.reason) for each in dead] == [(first[0], "HTTP 422: no such worker")]


def test_fault_of_a_channel_does_not_end_the_drain(engine: Engine) -> None:
    """What a channel did not expect is tried again later, with its kind as the reason."""
    notify(engine, "worker-17", "worker-18")

    async def fail(message: Message) -> None:
        if message.owner == "worker-17":
            raise KeyError("job")

    drained = drain(engine, [endpoint(Recorder(fail))], MESSAGES)

    assert (drained.sent, drained.retried) == (1, 1)
    with engine.connect() as connection:
        reason = list_deliveries(connection, owner="worker-17")[0].reason
    assert reason == "KeyError, a fault of the channel's own"


def test_sent_under_a_lost_lease_is_not_counted_as_sent(engine: Engine) -> None:
    """Another drainer had it meanwhile, and its outcome is the one that counts."""
    notify(engine, "worker-17", "worker-18")

    def take_over(message: Message) -> None:
        later = NOON + timedelta(seconds=LEASE_SECONDS)
        with engine.begin() as connection:
            taken = claim(
                connection, endpoint="backend", owners_limit=1, per_owner_limit=9, lease_seconds=60, now=later
            )
            assert [each.notification.notification_id for each in taken] == [message.notification_id]
            refused = Settlement(claimed=taken[0], outcome=Outcome.DEAD, reason="HTTP 410")
            assert len(settle(connection, [refused], now=later)) == 1

    async def answer_late(message: Message) -> None:
        if message.owner == "worker-17":
            await asyncio.to_thread(take_over, message)

    drained = drain(engine, [endpoint(Recorder(answer_late))], MESSAGES, clock=at(NOON))

    assert (drained.sent, drained.dead, drained.lost, drained.endpoints["backend"].lost) == (1, 0, 1, 1)
    assert states(engine) == {"DEAD": 1, "DELIVERED": 1}


def test_drain_ends_when_it_is_told_to(engine: Engine) -> None:
    """What is claimed and not sent is given back, untried, and can be claimed at once."""
    notify(engine, *["worker-17"] * 10)
    stop = threading.Event()

    async def stop_at_once(_: Message) -> None:
        stop.set()

    first = drain(engine, [endpoint(Recorder(stop_at_once))], MESSAGES, stop=stop.is_set)
    none = drain(engine, [endpoint(Recorder())], MESSAGES, seconds_max=0)
    rest = drain(engine, [endpoint(Recorder())], MESSAGES)

    assert (first.sent, first.waiting, none.sent, rest.sent) == (1, 9, 0, 9)


# ---- receivers that fail


def test_what_is_under_way_is_settled_though_a_claim_is_cancelled(engine: Engine) -> None:
    """A drain that is to end cancels a claim that waits for a lock; what is sent meanwhile is settled."""
    notify(engine, *(f"worker-{number}" for number in range(3 * OWNERS_LIMIT)))
    stopped = threading.Event()
    locker, looker = engine.connect(), engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    def asked(question: str, answer: int, what: str) -> None:
        wait_for(lambda: looker.scalar(text(question)) == answer, what=what)

    async def answer(_message: Message) -> None:
        sent = len(channel.got)
        if sent == 0:
            # The next claim begins when these are on their way.
            await asyncio.to_thread(asked, LEASED, 2 * OWNERS_LIMIT, "two claims")
            locker.execute(text("LOCK TABLE buffer.contact"))
        elif sent == 2 * OWNERS_LIMIT - 1:
            await asyncio.to_thread(asked, WAITING_FOR_LOCKS, 1, "a claim that waits")
            stopped.set()
            await asyncio.to_thread(asked, WAITING_FOR_LOCKS, 0, "its end")

    channel = Recorder(answer)
    with locker, looker:
        drained = drain(engine, [endpoint(channel, concurrency=1)], MESSAGES, stop=stopped.is_set)

    assert drained.sent == len(channel.got) == 2 * OWNERS_LIMIT
    assert drain(engine, [endpoint(channel)], MESSAGES).sent == OWNERS_LIMIT
    assert max(Counter(channel.got).values()) == 1


def test_what_cannot_be_settled_in_time_is_said_and_sent_again(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """A drain that is to end does not wait for whoever keeps all settlements from being written."""
    notify(engine, "worker-1", "worker-2")
    stopped = threading.Event()
    locker = engine.connect()

    async def answer(_message: Message) -> None:
        locker.execute(text("LOCK TABLE buffer.delivery IN SHARE MODE"))
        stopped.set()

    channel = Recorder(answer)
    with locker:
        drained = drain(
            engine, [endpoint(channel, concurrency=1)], MESSAGES, clock=at(NOON), stop=stopped.is_set
        )

    assert (drained.sent, len(channel.got)) == (0, 1)
    assert "backend: 1 sent messages could not be settled in time" in caplog.text
    after_lease, again = NOON + timedelta(seconds=LEASE_SECONDS + 1), Recorder()
    assert drain(engine, [endpoint(again)], MESSAGES, clock=at(after_lease)).sent == 2
    assert sorted(Counter(channel.got + again.got).values()) == [1, 2]


def test_dead_receiver_is_left_alone(engine: Engine) -> None:
    """After five failures in a row nothing more is tried there, and no attempt is counted; others get all."""
    owners = [f"worker-{number}" for number in range(100)]
    notify(engine, *owners)

    async def down(_: Message) -> None:
        raise Unavailable("connection refused")

    good = Recorder()
    drained = drain(
        engine,
        [endpoint(Recorder(down), "down", concurrency=1), endpoint(good, "good")],
        MESSAGES,
        clock=at(NOON),
    )

    assert drained.endpoints["down"].paused
    assert (drained.endpoints["down"].retried, drained.endpoints["good"].sent) == (5, 100)
    assert sum(attempts(engine)) == 105
    with engine.connect() as connection:
        left = claim(
            connection,
            endpoint="down",
            owners_limit=1_000,
            per_owner_limit=9,
            lease_seconds=1,
            now=NOON,
            probe=True,
        )
    assert len(left) == 95


def test_what_is_given_up_here_says_nothing_of_the_receiver(engine: Engine) -> None:
    """Between failures it does not count as an answer, and does not close a breaker either."""
    notify(engine, *[f"worker-{number:02}" for number in range(40)])
    asked: list[str] = []

    async def down(message: Message) -> None:
        if int(message.owner[-2:]) % 2 == 0:
            raise NothingToSend("has no mail address any more")
        asked.append(message.owner)
        raise Unavailable("connection refused")

    def drained_at(moment: datetime) -> Tally:
        target = endpoint(Recorder(down), concurrency=1)
        return drain(engine, [target], MESSAGES, clock=at(moment)).endpoints["backend"]

    first = drained_at(NOON)
    # The probe is worker-01 again.
    second = drained_at(NOON + timedelta(minutes=1))

    assert (first.dead, first.retried, first.paused) == (5, 5, True)
    assert (second.dead, second.retried, second.paused) == (0, 1, True)
    assert len(asked) == 6


def test_receiver_is_left_alone_from_drain_to_drain(engine: Engine) -> None:
    """What opened the breaker stands in the books: until then nothing is tried, then one message is."""
    notify(engine, *[f"worker-{number}" for number in range(40)])
    tried: list[int] = []

    async def busy(message: Message) -> None:
        tried.append(message.notification_id)
        raise Unavailable("HTTP 429", 7_200 if len(tried) == 1 else 60)

    channel = Recorder(busy)

    def tried_at(moment: datetime) -> tuple[int, bool, bool]:
        tried.clear()
        with engine.connect() as connection:
            due = to_send(connection, endpoints=["backend"], now=moment).due
        drained = drain(engine, [endpoint(channel, concurrency=1)], MESSAGES, clock=at(moment))
        return len(tried), due, drained.endpoints["backend"].paused

    drain(engine, [endpoint(channel, concurrency=1)], MESSAGES, clock=at(NOON))
    with engine.connect() as connection:
        [found] = find_pauses(connection, ["backend"])
    assert (len(tried), found.reason) == (5, "HTTP 429")
    assert NOON + timedelta(minutes=119) < found.open_until <= NOON + timedelta(hours=2)

    assert tried_at(NOON + timedelta(minutes=119)) == (0, False, True)
    # The probe is the first one again, which asks for two hours more.
    assert tried_at(NOON + timedelta(hours=2)) == (1, True, True)
    assert tried_at(NOON + timedelta(hours=3)) == (0, False, True)
    channel.answer = None
    drained = drain(engine, [endpoint(channel)], MESSAGES, clock=at(NOON + timedelta(hours=5)))
    assert (drained.sent, drained.endpoints["backend"].paused) == (40, False)
    with engine.connect() as connection:
        assert find_pauses(connection, ["backend"]) == []


def test_receiver_that_comes_back_is_found_by_a_probe(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While others still send, one message is tried after the pause; once it is taken, the rest follows."""
    monkeypatch.setattr("buffer_pipeline.delivery.drain.Breaker", partial(Breaker, pause_seconds=0.05))
    notify(engine, *[f"worker-{number}" for number in range(40)])
    failures: list[int] = []
    through = threading.Event()
    back = Recorder()

    async def down_at_first(message: Message) -> None:
        if len(failures) < 7:
            failures.append(message.notification_id)
            raise Unavailable("connection refused")
        if len(back.got) == 32:
            through.set()

    async def wait_for_the_other(_: Message) -> None:
        while not through.is_set():
            await asyncio.sleep(0.01)

    back.answer = down_at_first
    drained = drain(
        engine,
        [
            endpoint(back, "back", concurrency=1),
            endpoint(Recorder(wait_for_the_other), "busy", timeout_seconds=30),
        ],
        MESSAGES,
        clock=at(NOON),
    )

    assert (drained.endpoints["back"].retried, drained.endpoints["back"].sent) == (7, 33)
    assert not drained.endpoints["back"].paused
    assert drained.endpoints["busy"].sent == 40
    assert len(set(failures)) == 7


def test_receiver_that_hangs_does_not_hold_the_others(engine: Engine) -> None:
    """Others are through while it still takes its time."""
    notify(engine, *[f"worker-{number}" for number in range(50)])
    through = threading.Event()
    seen: list[bool] = []
    good = Recorder()

    async def note(_: Message) -> None:
        if len(good.got) == 49:
            through.set()

    good.answer = note

    async def hang(_: Message) -> None:
        # In the threads of the loop, as a name that nobody resolves hangs there.
        seen.append(await asyncio.to_thread(through.wait, 20))

    drain(engine, [endpoint(Recorder(hang), "slow", timeout_seconds=30), endpoint(good, "good")], MESSAGES)

    assert len(good.got) == 50
    assert all(seen)


def test_what_is_written_during_a_drain_does_not_wait_for_a_slow_receiver(engine: Engine) -> None:
    """It reaches those who had finished long before, while the slow one still has a backlog."""
    notify(engine, *["worker-17"] * 5)
    good, slow = Recorder(), Recorder()
    finished, through = threading.Event(), threading.Event()
    seen: list[bool] = []

    async def note(message: Message) -> None:
        if len(good.got) == 4:
            finished.set()
        if message.owner == "worker-18":
            through.set()

    async def wait_for_the_newcomer(_: Message) -> None:
        if not seen:
            await asyncio.to_thread(finished.wait, WAIT_SECONDS_MAX)
            await asyncio.to_thread(notify, engine, "worker-18")
        seen.append(await asyncio.to_thread(through.wait, WAIT_SECONDS_MAX))

    good.answer, slow.answer = note, wait_for_the_newcomer
    drained = drain(engine, [endpoint(good, "good"), endpoint(slow, "slow", timeout_seconds=30)], MESSAGES)

    assert seen == [True] * 6
    assert (drained.endpoints["good"].sent, drained.endpoints["slow"].sent) == (6, 6)


def test_row_goes_through_three_days_of_failures_to_the_dead_and_back(engine: Engine) -> None:
    """Tried at ever longer intervals for three days, then dead with its last reason; replayed, it is sent."""
    notify(engine, "worker-17")
    tried: list[datetime] = []
    now = NOON

    async def fail(_: Message) -> None:
        tried.append(now)
        raise Unavailable("HTTP 503: down for repairs")

    channel = Recorder(fail)
    while states(engine).get("DEAD", 0) == 0:
        drained = drain(engine, [endpoint(channel)], MESSAGES, clock=at(now))
        with engine.connect() as connection:
            waiting = list_deliveries(connection, state=DeliveryState.WAITING)
        assert drained.retried + drained.dead == 1
        if waiting:
            assert waiting[0].next_attempt_at > now
            assert waiting[0].next_attempt_at <= now + timedelta(hours=6)
            assert drain(engine, [endpoint(channel)], MESSAGES, clock=at(now)).retried == 0
            now = waiting[0].next_attempt_at

    assert tried[-1] == NOON + timedelta(days=3)
    assert len(tried) == len(set(tried)) == attempts(engine)[0] > 12
    with engine.begin() as connection:
        dead = list_deliveries(connection, state=DeliveryState.DEAD)
        assert [(each.reason, each.settled_at) for each in dead] == [("HTTP 503: down for repairs", now)]
        replay(connection, ids=[dead[0].delivery_id], now=now, batch_limit=1)
    channel.answer = None
    assert drain(engine, [endpoint(channel)], MESSAGES, clock=at(now)).sent == 1
    assert attempts(engine) == [1]


def test_retry_after_is_honoured(engine: Engine) -> None:
    """A receiver that says when to come back is not asked before."""
    notify(engine, "worker-17")

    async def busy(_: Message) -> None:
        raise Unavailable("HTTP 429", 3_600)

    channel = Recorder(busy)
    drain(engine, [endpoint(channel)], MESSAGES, clock=at(NOON))
    channel.answer = None

    assert drain(engine, [endpoint(channel)], MESSAGES, clock=at(NOON + timedelta(minutes=59))).sent == 0
    assert drain(engine, [endpoint(channel)], MESSAGES, clock=at(NOON + timedelta(hours=1))).sent == 1


def test_receiver_that_accepts_after_the_timeout_counts_once(engine: Engine, httpserver: HTTPServer) -> None:
    """It had the message and answered too late; the second attempt carries the same id."""
    notify(engine, "worker-17")
    ids: list[str] = []
    again = threading.Event()

    def accept(request: Request) -> Response:
        ids.append(request.headers["webhook-id"])
        if len(ids) == 1:
            again.wait(30)
        else:
            again.set()
        return Response(status=204)

    httpserver.expect_request("/hook").respond_with_handler(accept)
    target = webhook(httpserver.url_for("/hook"), timeout_seconds=0.3)

    late = drain(engine, [target], MESSAGES, clock=at(NOON))
    # The receiver of the tests answers one at a time.
    again.set()
    done = drain(engine, [target], MESSAGES, clock=at(NOON + timedelta(seconds=11)))

    assert (late.retried, done.sent) == (1, 1)
    assert len(ids) == 2
    assert len(set(ids)) == 1


def test_receiver_that_is_down_then_up(engine: Engine, httpserver: HTTPServer) -> None:
    """500, then 200: sent at the second attempt."""
    notify(engine, "worker-17")
    httpserver.expect_ordered_request("/hook").respond_with_data("oops", status=500)
    httpserver.expect_ordered_request("/hook").respond_with_data("thanks")
    target = webhook(httpserver.url_for("/hook"))

    first = drain(engine, [target], MESSAGES, clock=at(NOON))
    with engine.connect() as connection:
        reason = list_deliveries(connection)[0].reason
    second = drain(engine, [target], MESSAGES, clock=at(NOON + timedelta(seconds=11)))

    assert (first.retried, reason, second.sent) == (1, "HTTP 500: oops", 1)


# ---- SIGKILL


@pytest.mark.parametrize(
    ("step", "sent_twice"),
    [("in the claim", False), ("after the claim", False), ("while sending", True), ("before the mark", True)],
)
def test_killed_drainer_loses_nothing(
    engine: Engine, database_url: str, httpserver: HTTPServer, step: str, sent_twice: bool
) -> None:
    """Another drainer sends what the killed one had, once its lease is over; what comes twice has one id."""
    notify(engine, "worker-17", "worker-18")
    ids: list[str] = []
    held = threading.Event()
    arrived = threading.Event()

    def take(request: Request) -> Response:
        ids.append(request.headers["webhook-id"])
        arrived.set()
        if step == "while sending" and len(ids) == 1:
            held.wait(60)
        return Response(status=204)

    httpserver.expect_request("/hook").respond_with_handler(take)
    url = httpserver.url_for("/hook")
    process = subprocess.Popen(
        [sys.executable, "-m", "buffer_pipeline_tests.drainer", step, database_url, url],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if step == "while sending":
        assert arrived.wait(60)
    else:
        assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    held.set()

    with engine.connect() as connection:
        now = database_clock(connection)
    before = drain(engine, [webhook(url)], MESSAGES, clock=at(now))
    after = drain(engine, [webhook(url)], MESSAGES, clock=at(now + timedelta(seconds=LEASE_SECONDS + 1)))

    claimed_when_killed = step != "in the claim"
    assert (before.sent, after.sent) == ((0, 2) if claimed_when_killed else (2, 0))
    assert states(engine) == {"DELIVERED": 2}
    assert len(set(ids)) == 2
    assert (len(ids) > 2) == sent_twice
