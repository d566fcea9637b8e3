"""The inbox: pages, read marks, and the channel that fills it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, event

from buffer_pipeline.database import make_engine
from buffer_pipeline.delivery.channel import GiveUp, Unavailable
from buffer_pipeline.delivery.inbox import InboxChannel, InboxOptions
from buffer_pipeline.errors import InvalidInput, NotFound, PaymentBufferError
from buffer_pipeline.inbox import (
    InboxMessage,
    add_to_inbox,
    count_unread,
    list_inbox,
    mark_all_read,
    mark_read,
)
from buffer_pipeline.messages import Message, Messages, samples
from buffer_pipeline_tests.builders import PAYEE, PAYER, all_at_once
from buffer_pipeline_tests.conftest import NOON

LATER = NOON + timedelta(hours=1)


def inbox_message(notification_id: int, *, owner: str = PAYEE) -> InboxMessage:
    """Return a message of an owner's."""
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
    """Return so many messages to one owner, from 1 on."""
    sample = next(samples("PAYMENT_RELEASED"))
    renderer = Messages()
    return [renderer.render(replace(sample, notification_id=number), None) for number in range(1, count + 1)]


def send_all(engine: Engine, messages: Sequence[Message]) -> list[BaseException | None]:
    """Send messages at the same time; return what each send raised."""

    async def run() -> list[BaseException | None]:
        async with InboxChannel(InboxOptions()).open(engine=engine) as sender:
            return await asyncio.gather(
                *(sender.send(message) for message in messages), return_exceptions=True
            )

    return asyncio.run(run())


# ---- pages


def test_pages_go_back_in_time(connection: Connection) -> None:
    """The newest first; what arrives between two pages is on neither of the later ones."""
    add_to_inbox(connection, [inbox_message(number) for number in range(1, 8)])
    add_to_inbox(connection, [inbox_message(100, owner=PAYER)])

    first = list_inbox(connection, owner=PAYEE, limit=3)
    add_to_inbox(connection, [inbox_message(8)])
    second = list_inbox(connection, owner=PAYEE, limit=3, before=first[-1].notification_id)
    last = list_inbox(connection, owner=PAYEE, limit=3, before=second[-1].notification_id)

    assert (ids(first), ids(second), ids(last)) == ([7, 6, 5], [4, 3, 2], [1])
    assert first[0] == inbox_message(7)


def test_unread_ones_can_be_listed_and_counted(connection: Connection) -> None:
    """A page of unread messages passes over those that were read."""
    add_to_inbox(connection, [inbox_message(number) for number in range(1, 6)])
    mark_read(connection, owner=PAYEE, notification_ids=[2, 4], now=LATER)

    unread = list_inbox(connection, owner=PAYEE, unread=True, limit=2)
    behind = list_inbox(connection, owner=PAYEE, unread=True, before=unread[-1].notification_id)

    assert (ids(unread), ids(behind)) == ([5, 3], [1])
    assert count_unread(connection, owner=PAYEE) == 3
    assert count_unread(connection, owner=PAYER) == 0


@pytest.mark.parametrize("limit", [0, -1, 501])
def test_a_page_has_its_bounds(connection: Connection, limit: int) -> None:
    """A limit is refused, never clamped."""
    with pytest.raises(InvalidInput, match="limit"):
        list_inbox(connection, owner=PAYEE, limit=limit)


# ---- read marks


def test_the_first_reading_counts(connection: Connection) -> None:
    """Marked again, a message keeps the time at which it was first read."""
    add_to_inbox(connection, [inbox_message(1), inbox_message(2)])

    first = mark_read(connection, owner=PAYEE, notification_ids=[1], now=NOON)
    again = mark_read(connection, owner=PAYEE, notification_ids=[1, 2, 2], now=LATER)

    assert (first, again) == (1, 1)
    assert [message.read_at for message in list_inbox(connection, owner=PAYEE)] == [LATER, NOON]


@pytest.mark.parametrize("strange", [3, 99])
def test_others_messages_cannot_be_marked(connection: Connection, strange: int) -> None:
    """One that is somebody else's, or nobody's, refuses the call, and nothing is marked."""
    add_to_inbox(connection, [inbox_message(1), inbox_message(3, owner=PAYER)])

    with pytest.raises(NotFound, match=f"notification {strange}"):
        mark_read(connection, owner=PAYEE, notification_ids=[1, strange], now=NOON)

    assert count_unread(connection, owner=PAYEE) == count_unread(connection, owner=PAYER) == 1


def test_all_that_was_seen_can_be_marked(connection: Connection) -> None:
    """What happened behind the newest that was seen stays unread; a late one from before counts as seen."""
    add_to_inbox(connection, [inbox_message(number) for number in (2, 3)])
    add_to_inbox(connection, [inbox_message(4, owner=PAYER)])
    add_to_inbox(connection, [inbox_message(1)])

    marked = mark_all_read(connection, owner=PAYEE, up_to=2, now=NOON)
    again = mark_all_read(connection, owner=PAYEE, up_to=2, now=LATER)

    assert (marked, again) == (2, 0)
    assert ids(list_inbox(connection, owner=PAYEE, unread=True)) == [3]
    assert count_unread(connection, owner=PAYER) == 1


def test_two_who_mark_one_message_count_it_once(engine: Engine) -> None:
    """Whoever comes second finds it read."""
    with engine.begin() as connection:
        add_to_inbox(connection, [inbox_message(1)])

    def mark() -> Callable[[Connection], int]:
        return lambda connection: mark_read(connection, owner=PAYEE, notification_ids=[1], now=NOON)

    counts: list[int | PaymentBufferError] = all_at_once(engine, mark(), mark())

    assert sorted(count for count in counts if isinstance(count, int)) == [0, 1]


def test_two_who_add_the_same_messages_add_them_once(engine: Engine) -> None:
    """Given in opposite orders at the same time, each message is counted by one of the two."""
    given = [inbox_message(number) for number in range(1, 51)]

    def add(messages: list[InboxMessage]) -> Callable[[Connection], int]:
        return lambda connection: add_to_inbox(connection, messages)

    counts = all_at_once(engine, add(given), add(given[::-1]))

    assert sorted(count for count in counts if isinstance(count, int)) == [0, 50]
    with engine.begin() as connection:
        assert count_unread(connection, owner=PAYEE) == 50


# ---- the channel


def test_sent_messages_are_in_the_inbox_once(engine: Engine) -> None:
    """Sent again, as after an answer that was lost, a message is there once and stays read."""
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


def test_what_is_sent_together_is_written_together(engine: Engine) -> None:
    """A hundred sends at once are far fewer transactions, and all are in the inbox."""
    commits: list[Connection] = []
    event.listen(engine, "commit", commits.append)

    outcomes = send_all(engine, messages_to_send(100))

    assert outcomes == [None] * 100
    assert 1 <= len(commits) <= 10
    with engine.begin() as connection:
        assert len(list_inbox(connection, owner=PAYEE, limit=500)) == 100


def test_one_that_the_database_refuses_does_not_hold_the_others(engine: Engine) -> None:
    """What cannot be stored is given up; what was sent beside it arrives."""
    good, bad = messages_to_send(2)

    outcomes = send_all(engine, [replace(bad, text="nul \x00 byte"), good])

    with engine.begin() as connection:
        assert ids(list_inbox(connection, owner=PAYEE)) == [1]
    assert isinstance(outcomes[0], GiveUp)
    assert outcomes[1] is None


def test_a_database_that_is_away_is_tried_again() -> None:
    """No answer is the database's fault, not the message's."""
    nowhere = make_engine("postgresql://buffer@127.0.0.1:1/nowhere")

    outcomes = send_all(nowhere, messages_to_send(2))

    nowhere.dispose()
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
