"""A drain sends each message at least once and in order, outside any transaction, and survives SIGKILL."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import timedelta

import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import Engine, text
from werkzeug import Request, Response

from buffer_pipeline.database import database_clock
from buffer_pipeline.notifications.channels.channel import GiveUp, TryAgain
from buffer_pipeline.notifications.drain import Drained, drain
from buffer_pipeline.notifications.endpoint_drain import LEASE_SECONDS, OWNERS_LIMIT
from buffer_pipeline.notifications.messages import Message
from buffer_pipeline.notifications.outbox import (
    DeliveryState,
    Outcome,
    Settlement,
    claim,
    list_deliveries,
    settle,
)
from buffer_pipeline_tests.support.builders import NOON, WAIT_SECONDS_MAX
from buffer_pipeline_tests.support.drains import MESSAGES, Recorder, at, attempts, endpoint, notify, states
from buffer_pipeline_tests.support.stack import wait_for
from buffer_pipeline_tests.support.webhook import webhook

OPEN_TRANSACTIONS = """SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
      AND backend_type = 'client backend'"""

LEASED = "SELECT count(*) FROM buffer.delivery WHERE lease IS NOT NULL"
WAITING_FOR_LOCKS = """SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'"""


# ---- sending


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
    """They send each message once, and never two messages of an owner at the same time."""
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
    """During a send, no transaction is open in the books."""
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


def test_failed_message_blocks_its_owners_later_ones(engine: Engine) -> None:
    """The rest of the lane is returned without an attempt. Other owners are not delayed."""
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


def test_permanently_refused_message_is_dead(engine: Engine) -> None:
    """At once, with its reason, and the next message is sent."""
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
    """An unexpected exception is retried later, with its class as the reason."""
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
    """Another drain claimed it meanwhile, and its outcome counts."""
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


def test_stopped_drain_returns_its_claims(engine: Engine) -> None:
    """Unsent deliveries are returned without an attempt and can be claimed at once."""
    notify(engine, *["worker-17"] * 10)
    stop = threading.Event()

    async def stop_at_once(_: Message) -> None:
        stop.set()

    first = drain(engine, [endpoint(Recorder(stop_at_once))], MESSAGES, stop=stop.is_set)
    none = drain(engine, [endpoint(Recorder())], MESSAGES, seconds_max=0)
    rest = drain(engine, [endpoint(Recorder())], MESSAGES)

    assert (first.sent, first.waiting, none.sent, rest.sent) == (1, 9, 0, 9)


# ---- stopping a drain


def test_stopped_drain_settles_sends_in_progress(engine: Engine) -> None:
    """It cancels a claim that waits for a lock."""
    notify(engine, *(f"worker-{number}" for number in range(3 * OWNERS_LIMIT)))
    stopped = threading.Event()
    locker, looker = engine.connect(), engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    def wait_until_count(question: str, answer: int, what: str) -> None:
        wait_for(lambda: looker.scalar(text(question)) == answer, what=what)

    async def answer(_message: Message) -> None:
        sent = len(channel.got)
        if sent == 0:
            # The next claim begins while these are being sent.
            await asyncio.to_thread(wait_until_count, LEASED, 2 * OWNERS_LIMIT, "two claims")
            locker.execute(text("LOCK TABLE buffer.contact"))
        elif sent == 2 * OWNERS_LIMIT - 1:
            await asyncio.to_thread(wait_until_count, WAITING_FOR_LOCKS, 1, "a claim that waits")
            stopped.set()
            await asyncio.to_thread(wait_until_count, WAITING_FOR_LOCKS, 0, "its end")

    channel = Recorder(answer)
    with locker, looker:
        drained = drain(engine, [endpoint(channel, concurrency=1)], MESSAGES, stop=stopped.is_set)

    assert drained.sent == len(channel.got) == 2 * OWNERS_LIMIT
    assert drain(engine, [endpoint(channel)], MESSAGES).sent == OWNERS_LIMIT
    assert max(Counter(channel.got).values()) == 1


def test_unsettled_deliveries_are_reported_and_sent_again(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """A stopped drain does not wait for a lock that blocks all settlements."""
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


# ---- SIGKILL


@pytest.mark.parametrize(
    ("step", "sent_twice"),
    [("in the claim", False), ("after the claim", False), ("while sending", True), ("before the mark", True)],
)
def test_killed_drainer_loses_nothing(
    engine: Engine, database_url: str, httpserver: HTTPServer, step: str, sent_twice: bool
) -> None:
    """After the lease, another drainer sends its messages. Duplicates have the same id."""
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
        [sys.executable, "-m", "buffer_pipeline_tests.support.drainer", step, database_url, url],
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
