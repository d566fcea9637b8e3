"""The interface of a channel, which is a way to send messages, and endpoints from the settings.

A new channel is a file and an entry point in the group `buffer_pipeline.channels`, which names the channel's
class. An endpoint is a channel with its options: BUFFER_ENDPOINTS may have several of one channel.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, ClassVar, Final, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Engine

from buffer_pipeline.errors import PaymentBufferError, SettingError
from buffer_pipeline.notifications.messages import TYPES, Message
from buffer_pipeline.notifications.outbox import Route
from buffer_pipeline.settings import EndpointSetting

ENTRY_POINTS: Final = "buffer_pipeline.channels"
SEND_SECONDS_MAX: Final = 30.0
"""The longest timeout of a channel for one message. A lease is longer."""


class TryAgain(PaymentBufferError):
    """The message could not be sent now. The receiver may ask not to be tried for `after_seconds`."""

    def __init__(self, reason: str, after_seconds: float | None = None) -> None:
        self.reason = reason
        self.after_seconds = after_seconds
        super().__init__(reason)


class Unavailable(TryAgain):
    """As TryAgain, but not because of this message: several in a row open the endpoint's circuit breaker."""


class GiveUp(PaymentBufferError):
    """The receiver will never take this message."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class NothingToSend(GiveUp):
    """As GiveUp, but the receiver was not asked, so this does not show whether it answers."""


class ChannelOptions(BaseModel):
    """The options of every channel. A channel adds its own, with secrets as `SecretStr`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    concurrency: int = Field(default=32, ge=1, le=500)
    """To how many owners messages are sent at the same time."""
    timeout_seconds: float = Field(default=10.0, gt=0, le=SEND_SECONDS_MAX)


class Sender(Protocol):
    """An open channel."""

    async def send(self, message: Message) -> None:
        """Send one message; return once the receiver has it. Many are sent at the same time.

        Raises:
            TryAgain: it cannot be sent now; Unavailable if the next message will fail too.
            GiveUp: it can never be sent; NothingToSend if the receiver was not asked.
        """


class Channel(Protocol):
    """A way to send messages."""

    Options: ClassVar[type[Any]]
    """A ChannelOptions."""
    needs_address: ClassVar[bool]
    """Whether it sends only to owners with a mail address."""

    def __init__(self, options: Any) -> None: ...

    def open(self, *, engine: Engine) -> AbstractAsyncContextManager[Sender]:
        """Yield the open channel. Its connections may stay open until the context ends."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A channel with its options, as the settings have it."""

    name: str
    channel: Channel
    options: ChannelOptions
    types: frozenset[str] | None = None

    @property
    def route(self) -> Route:
        """Which notifications the endpoint takes."""
        return Route(name=self.name, types=self.types, needs_address=self.channel.needs_address)


def configured_endpoints(settings: Sequence[EndpointSetting]) -> tuple[Endpoint, ...]:
    """Return the endpoints of BUFFER_ENDPOINTS.

    Raises:
        SettingError: a channel or type does not exist, or a channel refuses an option; the message names
            the endpoint and the option, never its value.
    """
    return tuple(make_endpoint(setting) for setting in settings)


def make_endpoint(setting: EndpointSetting) -> Endpoint:
    """Return one endpoint.

    Raises:
        SettingError: as `configured_endpoints`.
    """
    where = f"BUFFER_ENDPOINTS: endpoint {setting.name}"
    channels = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if setting.channel not in channels:
        raise SettingError(
            f"{where}: no channel {setting.channel!r}; there are {', '.join(sorted(channels))}"
        )
    unknown = sorted(set(setting.types or ()) - set(TYPES))
    if unknown:
        raise SettingError(f"{where}: no type {unknown[0]!r}; there are {', '.join(TYPES)}")
    channel_class = channels[setting.channel].load()
    try:
        options = channel_class.Options(**setting.options)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        option = ".".join(str(part) for part in first["loc"])
        fact = first["msg"].removeprefix("Value error, ")
        raise SettingError(f"{where}: {f'{option}: ' if option else ''}{fact}") from None
    return Endpoint(
        name=setting.name,
        channel=channel_class(options),
        options=options,
        types=None if setting.types is None else frozenset(setting.types),
    )
