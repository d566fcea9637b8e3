"""The channel `log`: a line a notification, on the logger `buffer_pipeline.notifications`."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar, Final

from sqlalchemy import Engine

from buffer_pipeline.delivery.channel import ChannelOptions
from buffer_pipeline.messages import Message
from buffer_pipeline.texts import one_line

logger: Final = logging.getLogger("buffer_pipeline.notifications")


class LogChannel:
    """Writes to the log, and so never fails."""

    Options: ClassVar[type[ChannelOptions]] = ChannelOptions
    needs_address: ClassVar[bool] = False

    def __init__(self, options: ChannelOptions) -> None:
        self.options = options

    @asynccontextmanager
    async def open(self, *, engine: Engine) -> AsyncIterator["LogChannel"]:  # noqa: ARG002 - a channel's signature
        """Yield itself: a log is always open."""
        yield self

    async def send(self, message: Message) -> None:
        """Write the line."""
        logger.info("%s", self.preview(message))

    def preview(self, message: Message) -> str:
        """Return the line: who is told what about which hold."""
        data = message.payload["data"]
        facts = [f"job {data['job']}"]
        if data["hold_id"] is not None:
            facts.insert(0, f"hold {data['hold_id']}")
        if data["backjob_id"] is not None:
            facts.append(f"backjob {data['backjob_id']}")
        if data["amount"] is not None:
            facts.append(f"{data['amount']} {data['currency']}")
        if data["release_date"] is not None:
            facts.append(f"release date {data['release_date']}")
        return (
            f"notification {message.notification_id} {message.type} to {message.owner}:"
            f" {', '.join(facts)}: {one_line(f'{message.title} {message.text}')}"
        )
