"""Endpoints in this process, and the state of the books after a drain."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Connection, Engine, select

from buffer_pipeline.notifications.channels.channel import ChannelOptions, Endpoint
from buffer_pipeline.notifications.messages import Message, Messages
from buffer_pipeline.tables import delivery
from buffer_pipeline_tests.support.builders import place_hold

MESSAGES = Messages()


@dataclass
class Recorder:
    """A channel in this process, with scripted answers, that records its messages in order."""

    answer: Callable[[Message], Awaitable[None]] | None = None
    got: list[tuple[str, int]] = field(default_factory=list)

    Options: ClassVar[type[ChannelOptions]] = ChannelOptions
    needs_address: ClassVar[bool] = False

    @asynccontextmanager
    async def open(self, *, engine: Engine) -> AsyncIterator["Recorder"]:  # noqa: ARG002
        """Return itself."""
        yield self

    async def send(self, message: Message) -> None:
        """Record the message and return the answer."""
        if self.answer is not None:
            await self.answer(message)
        self.got.append((message.owner, message.notification_id))


def endpoint(channel: Any, name: str = "backend", **options: Any) -> Endpoint:
    """Return an endpoint of a channel in this process."""
    return Endpoint(name=name, channel=channel, options=ChannelOptions(**options))


def notify(engine: Engine, *owners: str) -> None:
    """Write a notification for each owner in turn."""
    with engine.begin() as connection:
        for owner in owners:
            place_hold(connection, payee=owner)


def at(moment: datetime) -> Callable[[Connection], datetime]:
    """Return a stopped clock."""
    return lambda _: moment


def states(engine: Engine, endpoint_name: str = "backend") -> dict[str, int]:
    """Return state -> number of deliveries."""
    with engine.connect() as connection:
        return Counter(
            connection.scalars(select(delivery.c.state).where(delivery.c.endpoint == endpoint_name))
        )


def attempts(engine: Engine) -> list[int]:
    """Return the number of attempts of each delivery, oldest first."""
    with engine.connect() as connection:
        return list(connection.scalars(select(delivery.c.attempts).order_by(delivery.c.delivery_id)))
