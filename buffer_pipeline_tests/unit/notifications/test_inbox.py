"""The inbox: pages, read marks, and the channel that fills it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, event

from buffer_pipeline.database import make_engine
from buffer_pipeline.errors import InvalidInput, NotFound, PaymentBufferError
from buffer_pipeline.notifications.channels.channel import GiveUp, Unavailable
from buffer_pipeline.notifications.channels.inbox import InboxChannel, InboxOptions
from buffer_pipeline.notifications.inbox import (
    InboxMessage,
    add_to_inbox,
    count_unread,
    list_inbox,
    mark_all_read,
    mark_read,
)
from buffer_pipeline.notifications.messages import Message, Messages, samples
from buffer_pipeline_tests.support.builders import NOON, PAYEE, PAYER, all_at_once

LATER = NOON + timedelta(hours=1)


def inbox_message(notification_id: int, *, owner: str = PAYEE) -> InboxMessage:
    """Return a message of an owner."""
    return InboxMessage(
        notification_id=notification_id,
        owner=owner,
        type="PAYMENT_RELEASED",
        title=f"Payment {notification_id} 🎉",
        body="You received ₱1.00.",
        hold_id=notification_id,
        backjob_id=None,
        created_at=NOON,
    )


def ids(messages: Sequence[InboxMessage]) -> list[int]:
    """Return their ids in order."""
    return [message.notification_id for message in messages]


def messages_to_send(count: int) -> list[Message]:
    """Return this many messages to one owner, numbered from 1."""
    sample = next(samples("PAYMENT_RELEASED"))
    renderer = Messages()
    return [renderer.render(replace(sample, notification_id=number), None) for number in range(1, count + 1)]


def send_all(engine: Engine, messages: Sequence[Message]) -> list[BaseException | None]:
    """Send messages concurrently; return the exception of each send."""

    async def run() -> list[BaseException | None]:
        async with InboxChannel(InboxOptions()).open(engine=engine) as sender:
            return await asyncio.gather(
                *(sender.send(message) for message in messages), return_exceptions=True
            )

    return asyncio.run(run())


# ---- pages


def test_pages_go_back_in_time(connection: Connection) -> None:
    """Newest first. A message that arrives between two pages is on neither of the later ones."""
    add_to_inbox(connection, [inbox_message(number) for number in range(1, 8)])
    add_to_inbox(connection, [inbox_message(100, owner=PAYER)])

    first = list_inbox(connection, owner=PAYEE, limit=3)
    add_to_inbox(connection, [inbox_message(8)])
    second = list_inbox(connection, owner=PAYEE, limit=3, before=first[-1].notification_id)
    last = list_inbox(connection, owner=PAYEE, limit=3, before=second[-1].notification_id)

    assert (ids(first), ids(second), ids(last)) == ([7, 6, 5], [4, 3, 2], [1])
    assert first[0] == inbox_message(7)


def test_unread_ones_can_be_listed_and_counted(connection: Connection) -> None:
    """A page of unread messages omits read ones."""
    add_to_inbox(connection, [inbox_message(number) for number in range(1, 6)])
    mark_read(connection, owner=PAYEE, notification_ids=[2, 4], now=LATER)

    unread = list_inbox(connection, owner=PAYEE, unread=True, limit=2)
    behind = list_inbox(connection, owner=PAYEE, unread=True, before=unread[-1].notification_id)

    assert (ids(unread), ids(behind)) == ([5, 3], [1])
    assert count_unread(connection, owner=PAYEE) == 3
    assert count_unread(connection, owner=PAYER) == 0


@pytest.mark.parametrize("limit", [0, -1, 501])
def test_page_limit_out_of_range_is_refused(connection: Connection, limit: int) -> None:
    """It is never clamped."""
    with pytest.raises(InvalidInput, match="limit"):
        list_inbox(connection, owner=PAYEE, limit=limit)


# ---- read marks


def test_the_first_reading_counts(connection: Connection) -> None:
    """Marking again keeps the time of the first reading."""
    add_to_inbox(connection, [inbox_message(1), inbox_message(2)])

    first = mark_read(connection, owner=PAYEE, notification_ids=[1], now=NOON)
    again = mark_read(connection, owner=PAYEE, notification_ids=[1, 2, 2], now=LATER)

    assert (first, again) == (1, 1)
    assert [message.read_at for message in list_inbox(connection, owner=PAYEE)] == [LATER, NOON]


@pytest.mark.parametrize("strange", [3, 99])
def test_others_messages_cannot_be_marked(connection: Connection, strange: int) -> None:
    """A message of another owner, or an unknown one, refuses the call, and nothing is marked."""
    add_to_inbox(connection, [inbox_message(1), inbox_message(3, owner=PAYER)])

    with pytest.raises(NotFound, match=f"notification {strange}"):
        mark_read(connection, owner=PAYEE, notification_ids=[1, strange], now=NOON)

    assert count_unread(connection, owner=PAYEE) == count_unread(connection, owner=PAYER) == 1


def test_all_that_was_seen_can_be_marked(connection: Connection) -> None:
    """Messages newer than the newest seen one stay unread. A late older one counts as seen."""
    add_to_inbox(connection, [inbox_message(number) for number in (2, 3)])
    add_to_inbox(connection, [inbox_message(4, owner=PAYER)])
    add_to_inbox(connection, [inbox_message(1)])

    marked = mark_all_read(connection, owner=PAYEE, up_to=2, now=NOON)
    again = mark_all_read(connection, owner=PAYEE, up_to=2, now=LATER)

    assert (marked, again) == (2, 0)
    assert ids(list_inbox(connection, owner=PAYEE, unread=True)) == [3]
    assert count_unread(connection, owner=PAYER) == 1


def test_concurrent_marks_count_a_message_once(engine: Engine) -> None:
    """The second finds it read."""
    with engine.begin() as connection:
        add_to_inbox(connection, [inbox_message(1)])

    def mark() -> Callable[[Connection], int]:
        return lambda connection: mark_read(connection, owner=PAYEE, notification_ids=[1], now=NOON)

    counts: list[int | PaymentBufferError] = all_at_once(engine, mark(), mark())

    assert sorted(count for count in counts if isinstance(count, int)) == [0, 1]


def test_concurrent_additions_add_each_message_once(engine: Engine) -> None:
    """Even in opposite orders."""
    given = [inbox_message(number) for number in range(1, 51)]

    def add(messages: list[InboxMessage]) -> Callable[[Connection], int]:
        return lambda connection: add_to_inbox(connection, messages)

    counts = all_at_once(engine, add(given), add(given[::-1]))

    assert sorted(count for count in counts if isinstance(count, int)) == [0, 50]
    with engine.begin() as connection:
        assert count_unread(connection, owner=PAYEE) == 50


# ---- the channel


def test_sent_messages_are_in_the_inbox_once(engine: Engine) -> None:
    """A repeated send, as after a lost answer, adds nothing and keeps the read mark."""
    messages = messages_to_send(3)
    first = send_all(engine, messages)
    with engine.begin() as connection:
        mark_read(connection, owner=PAYEE, notification_ids=[2], now=NOON)

    second = send_all(engine, messages)

    with engine.begin() as connection:
        listed = list_inbox(connection, owner=PAYEE)
    assert first == second == [None, None, None]
    assert [(message.notification_id, message.read_at) for message in listed] == [
        (3, None),
        (2, NOON),
        (1, None),
    ]
    assert (listed[0].title, listed[0].body, listed[0].hold_id) == (messages[2].title, messages[2].text, 41)


def test_concurrent_sends_share_transactions(engine: Engine) -> None:
    """A hundred sends need few transactions, and all messages are in the inbox."""
    commits: list[Connection] = []
    event.listen(engine, "commit", commits.append)

    outcomes = send_all(engine, messages_to_send(100))

    assert outcomes == [None] * 100
    assert 1 <= len(commits) <= 10
    with engine.begin() as connection:
        assert len(list_inbox(connection, owner=PAYEE, limit=500)) == 100


def test_one_that_the_database_refuses_does_not_hold_the_others(engine: Engine) -> None:
    """It is given up, and the messages sent with it arrive."""
    good, bad = messages_to_send(2)

    outcomes = send_all(engine, [replace(bad, text="nul \x00 byte"), good])

    with engine.begin() as connection:
        assert ids(list_inbox(connection, owner=PAYEE)) == [1]
    assert isinstance(outcomes[0], GiveUp)
    assert outcomes[1] is None


def test_unreachable_database_is_retried() -> None:
    """No answer is the database's fault, not the message's."""
    nowhere = make_engine("postgresql://buffer@127.0.0.1:1/nowhere")

    outcomes = send_all(nowhere, messages_to_send(2))

    nowhere.dispose()
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
