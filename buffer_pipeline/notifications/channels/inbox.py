"""The channel `inbox`: writes messages into a table of the books, which the platform's app reads.

Messages that are sent at the same time are written by one statement in one transaction.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import ClassVar

from pydantic import Field
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from buffer_pipeline.database import first_line
from buffer_pipeline.notifications.channels.channel import ChannelOptions, GiveUp, Unavailable
from buffer_pipeline.notifications.inbox import InboxMessage, add_to_inbox
from buffer_pipeline.notifications.messages import Message

_Pending = tuple[Message, asyncio.Future[None]]
"""A message, and the future that its caller awaits."""


class InboxOptions(ChannelOptions):
    """No options of its own. Sends many messages at the same time, because they share a statement."""

    concurrency: int = Field(default=200, ge=1, le=500)


class InboxChannel:
    """Writes into the owners' inboxes."""

    Options: ClassVar[type[InboxOptions]] = InboxOptions
    needs_address: ClassVar[bool] = False

    def __init__(self, options: InboxOptions) -> None:
        self.options = options

    @asynccontextmanager
    async def open(self, *, engine: Engine) -> AsyncIterator["InboxSender"]:
        """Yield a sender that writes by `engine`. The context ends after what was begun is written."""
        # A thread of its own, because the event loop's may all be blocked by something else.
        with ThreadPoolExecutor(1, "inbox") as thread:
            sender = InboxSender(engine, thread)
            try:
                yield sender
            finally:
                await sender.finish()

    def preview(self, message: Message) -> str:
        """Return the row as JSON."""
        row = {
            "notification_id": message.notification_id,
            "owner": message.owner,
            "type": message.type,
            "title": message.title,
            "body": message.text,
        }
        return json.dumps(row, ensure_ascii=False, indent=2)


class InboxSender:
    """Collects messages while a transaction runs, and writes them in the next one."""

    def __init__(self, engine: Engine, thread: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._thread = thread
        self._waiting: list[_Pending] = []
        self._writing: asyncio.Task[None] | None = None

    async def send(self, message: Message) -> None:
        """Return once the message is committed. Sending it again changes nothing.

        Raises:
            Unavailable: the database does not answer.
            GiveUp: the database refuses this message.
        """
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        await written

    async def finish(self) -> None:
        """Wait until every message that was sent is written."""
        if self._writing is not None:
            await self._writing

    async def _write_all(self) -> None:
        # All messages of this turn of the event loop go into the first transaction.
        await asyncio.sleep(0)
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await self._write([message for message, _ in batch])
            except (DataError, IntegrityError):
                await self._write_one_by_one(batch)
            except SQLAlchemyError as error:
                _fail(batch, Unavailable, error)
            else:
                _succeed(batch)

    async def _write_one_by_one(self, batch: Sequence[_Pending]) -> None:
        for pair in batch:
            try:
                await self._write([pair[0]])
            except (DataError, IntegrityError) as error:
                _fail([pair], GiveUp, error)
            except SQLAlchemyError as error:
                _fail([pair], Unavailable, error)
            else:
                _succeed([pair])

    async def _write(self, messages: Sequence[Message]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, messages)

    def _commit(self, messages: Sequence[Message]) -> None:
        with self._engine.begin() as connection:
            # Some may be there already: an attempt is repeated when its answer was lost.
            add_to_inbox(connection, [_row(message) for message in messages])


def _row(message: Message) -> InboxMessage:
    return InboxMessage(
        notification_id=message.notification_id,
        owner=message.owner,
        type=message.type,
        title=message.title,
        body=message.text,
        hold_id=message.payload["data"]["hold_id"],
        backjob_id=message.payload["data"]["backjob_id"],
        payout_id=message.payload["data"]["payout_id"],
        created_at=message.created_at,
    )


def _succeed(batch: Sequence[_Pending]) -> None:
    for _, written in batch:
        if not written.done():  # It is done if its caller was cancelled.
            written.set_result(None)


def _fail(
    batch: Sequence[_Pending], failure: type[GiveUp] | type[Unavailable], error: SQLAlchemyError
) -> None:
    reason = first_line(error) if isinstance(error, DBAPIError) else type(error).__name__
    for _, written in batch:
        if not written.done():
            written.set_exception(failure(f"inbox: {reason}"))
