"""The channel `log`: one line per notification, on the logger `buffer_pipeline.notifications`."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar, Final

from sqlalchemy import Engine

from buffer_pipeline.logs import FACTS
from buffer_pipeline.notifications.channels.channel import ChannelOptions
from buffer_pipeline.notifications.messages import Message
from buffer_pipeline.notifications.sanitize import one_line

logger: Final = logging.getLogger("buffer_pipeline.notifications")
_IDS: Final = ("job", "hold_id", "backjob_id", "payout_id")


class LogChannel:
    """Writes to the log. It never fails."""

    Options: ClassVar[type[ChannelOptions]] = ChannelOptions
    needs_address: ClassVar[bool] = False

    def __init__(self, options: ChannelOptions) -> None:
        self.options = options

    @asynccontextmanager
    async def open(self, *, engine: Engine) -> AsyncIterator["LogChannel"]:  # noqa: ARG002 - a channel's signature
        """Yield the channel itself; a log needs no connection."""
        yield self

    async def send(self, message: Message) -> None:
        """Write the line."""
        data = message.payload["data"]
        # A JSON line has the ids and not the text, which is for the owner only.
        facts = {
            "event": "notification",
            "notification_id": message.notification_id,
            "type": message.type,
            "owner": message.owner,
            **{name: data[name] for name in _IDS if data[name] is not None},
        }
        logger.info("%s", self.preview(message), extra={FACTS: facts})

    def preview(self, message: Message) -> str:
        """Return the line: the type, the owner, the facts and the text."""
        data = message.payload["data"]
        facts = [f"job {data['job']}" if data["payout_id"] is None else f"payout {data['payout_id']}"]
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
