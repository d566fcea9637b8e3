"""What a channel is: a way to send messages, with options of its own. A new one is a file and an entry point.

The entry point stands in the group `buffer_pipeline.channels` and names the channel's class. An endpoint is
a channel as configured: BUFFER_ENDPOINTS may have several of one channel.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, ClassVar, Final, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Engine

from buffer_pipeline.errors import PaymentBufferError, SettingError
from buffer_pipeline.messages import TYPES, Message
from buffer_pipeline.outbox import Route
from buffer_pipeline.settings import EndpointSetting

ENTRY_POINTS: Final = "buffer_pipeline.channels"
SEND_SECONDS_MAX: Final = 30.0
"""No channel may take longer for one message: a lease outlives this."""


class TryAgain(PaymentBufferError):
    """The message could not be sent now. `after_seconds` is the least that the receiver asked for."""

    def __init__(self, reason: str, after_seconds: float | None = None) -> None:
        self.reason = reason
        self.after_seconds = after_seconds
        super().__init__(reason)


class Unavailable(TryAgain):
    """As TryAgain, but for no fault of this message: several in a row open the endpoint's breaker."""


class GiveUp(PaymentBufferError):
    """The receiver will never take this message."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class NothingToSend(GiveUp):
    """As GiveUp, but nobody was asked: it says nothing of whether the receiver is there."""


class ChannelOptions(BaseModel):
    """What every channel can be told; each adds its own, secrets as `SecretStr`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    concurrency: int = Field(default=32, ge=1, le=500)
    """How many owners are sent to at the same time."""
    timeout_seconds: float = Field(default=10.0, gt=0, le=SEND_SECONDS_MAX)


class Sender(Protocol):
    """An open channel."""

    async def send(self, message: Message) -> None:
        """Send one message; return once the receiver has it. Many are sent at the same time.

        Raises:
            TryAgain: not now; Unavailable, if the next message will fare no better.
            GiveUp: never; NothingToSend, if that was found without asking the receiver.
        """


class Channel(Protocol):
    """A way to send messages."""

    Options: ClassVar[type[Any]]
    """A ChannelOptions."""
    needs_address: ClassVar[bool]
    """Whether only owners with a mail address have it."""

    def __init__(self, options: Any) -> None: ...

    def open(self, *, engine: Engine) -> AbstractAsyncContextManager[Sender]:
        """Hold connections open for as long as the context lasts."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A channel as configured."""

    name: str
    channel: Channel
    options: ChannelOptions
    types: frozenset[str] | None = None

    @property
    def route(self) -> Route:
        """Which notifications it takes."""
        return Route(name=self.name, types=self.types, needs_address=self.channel.needs_address)


def configured_endpoints(settings: Sequence[EndpointSetting]) -> tuple[Endpoint, ...]:
    """Return the endpoints of BUFFER_ENDPOINTS.

    Raises:
        SettingError: no such channel or type, or an option that its channel does not take; the message
            names the endpoint and the option, never its value.
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
