"""A drain with receivers that fail, hang, recover or ask for a pause."""

import asyncio
import threading
from datetime import datetime, timedelta
from functools import partial

import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import Engine
from werkzeug import Request, Response

from buffer_pipeline.notifications.breaker import Breaker
from buffer_pipeline.notifications.channels.channel import NothingToSend, Unavailable
from buffer_pipeline.notifications.drain import drain
from buffer_pipeline.notifications.endpoint_drain import EndpointCounts
from buffer_pipeline.notifications.messages import Message
from buffer_pipeline.notifications.outbox import (
    DeliveryState,
    claim,
    find_pauses,
    list_deliveries,
    replay,
    to_send,
)
from buffer_pipeline_tests.support.builders import NOON, WAIT_SECONDS_MAX
from buffer_pipeline_tests.support.drains import MESSAGES, Recorder, at, attempts, endpoint, notify, states
from buffer_pipeline_tests.support.webhook import webhook


def test_circuit_breaker_opens_after_five_failures(engine: Engine) -> None:
    """No attempt is made or counted at that receiver. Others get everything."""
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


def test_local_failures_do_not_count_for_the_breaker(engine: Engine) -> None:
    """They neither reset the count nor close the breaker."""
    notify(engine, *[f"worker-{number:02}" for number in range(40)])
    received: list[str] = []

    async def down(message: Message) -> None:
        if int(message.owner[-2:]) % 2 == 0:
            raise NothingToSend("has no mail address any more")
        received.append(message.owner)
        raise Unavailable("connection refused")

    def drained_at(moment: datetime) -> EndpointCounts:
        target = endpoint(Recorder(down), concurrency=1)
        return drain(engine, [target], MESSAGES, clock=at(moment)).endpoints["backend"]

    first = drained_at(NOON)
    # The probe is worker-01 again.
    second = drained_at(NOON + timedelta(minutes=1))

    assert (first.dead, first.retried, first.paused) == (5, 5, True)
    assert (second.dead, second.retried, second.paused) == (0, 1, True)
    assert len(received) == 6


def test_open_breaker_is_stored_for_the_next_drain(engine: Engine) -> None:
    """Nothing is tried until its time; then one message is."""
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
    # The probe is the first one again, which asks for two more hours.
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
    """While others still send, one message is tried after the pause. If it is accepted, the rest follows."""
    monkeypatch.setattr(
        "buffer_pipeline.notifications.endpoint_drain.Breaker", partial(Breaker, pause_seconds=0.05)
    )
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


def test_hanging_receiver_does_not_delay_others(engine: Engine) -> None:
    """They finish while it is still waiting."""
    notify(engine, *[f"worker-{number}" for number in range(50)])
    through = threading.Event()
    seen: list[bool] = []
    good = Recorder()

    async def note(_: Message) -> None:
        if len(good.got) == 49:
            through.set()

    good.answer = note

    async def hang(_: Message) -> None:
        # In the loop's threads, where an unresolvable name hangs.
        seen.append(await asyncio.to_thread(through.wait, 20))

    drain(engine, [endpoint(Recorder(hang), "slow", timeout_seconds=30), endpoint(good, "good")], MESSAGES)

    assert len(good.got) == 50
    assert all(seen)


def test_new_messages_do_not_wait_for_a_slow_receiver(engine: Engine) -> None:
    """New messages reach receivers that had finished, while the slow one still has a backlog."""
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


def test_delivery_is_retried_for_three_days_and_can_be_replayed(engine: Engine) -> None:
    """With growing intervals, then dead with its last reason. After a replay it is sent."""
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
    """No request is sent before that time."""
    notify(engine, "worker-17")

    async def busy(_: Message) -> None:
        raise Unavailable("HTTP 429", 3_600)

    channel = Recorder(busy)
    drain(engine, [endpoint(channel)], MESSAGES, clock=at(NOON))
    channel.answer = None

    assert drain(engine, [endpoint(channel)], MESSAGES, clock=at(NOON + timedelta(minutes=59))).sent == 0
    assert drain(engine, [endpoint(channel)], MESSAGES, clock=at(NOON + timedelta(hours=1))).sent == 1


def test_receiver_that_accepts_after_the_timeout_counts_once(engine: Engine, httpserver: HTTPServer) -> None:
    """It accepted the message too late. The second attempt has the same id."""
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
    # The test's receiver answers one request at a time.
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
