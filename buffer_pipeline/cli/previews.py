"""Sample notifications: shown as each channel would send them, or sent to a receiver as a test."""

import asyncio
import secrets
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, runtime_checkable

from sqlalchemy import create_engine

from buffer_pipeline.errors import InvalidInput, SettingError
from buffer_pipeline.notifications.channels.channel import (
    Endpoint,
    GiveUp,
    TryAgain,
    configured_endpoints,
    make_endpoint,
)
from buffer_pipeline.notifications.contact import Contact
from buffer_pipeline.notifications.locales import find_locale, find_zone
from buffer_pipeline.notifications.messages import Message, Messages, samples
from buffer_pipeline.notifications.sanitize import shorten
from buffer_pipeline.notifications.templates import MESSAGE_TITLE_LENGTH_MAX
from buffer_pipeline.settings import EndpointSetting, Settings
from buffer_pipeline.shares import ShareKind

TEST_IDS: Final = range(9_000_000_000_000_000, 2**53)
"""Above any real id, and small enough for every JSON parser to read it as an exact integer."""

TEST_OWNER: Final = "test-webhook"
TEST_TITLE: Final = "Test: no work, no money"

NO_PREVIEW: Final = "no preview"

ADDRESS: Final = "owner@example.com"

# Options for channels that are not configured, so that a preview shows every channel.
_STAND_INS: Final[dict[str, dict[str, Any]]] = {
    "log": {},
    "inbox": {},
    "email": {"host": "localhost", "sender": "payments@example.com"},
    "webhook": {
        "url": "https://backend.example.com/notifications",
        "secrets": ["whsec_" + b64encode(bytes(32)).decode()],
    },
}


@runtime_checkable
class Previewing(Protocol):
    """A channel that can show what it would send."""

    def preview(self, message: Message) -> str:
        """Return the message as text."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The message to one reader at one endpoint."""

    endpoint: str
    channel: str
    to_payer: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class Tried:
    """The answer of a receiver to a notification. `outcome` is a sentence."""

    webhook_id: str
    delivered: bool
    outcome: str
    seconds: float
    made_up_secret: str | None


def previews(
    settings: Settings,
    type_: str,
    *,
    locale: str | None,
    time_zone: str | None,
    kind: ShareKind | None = None,
) -> Iterator[Preview]:
    """Yield a sample of a type for each endpoint that takes it, and for each channel without an endpoint.

    With `kind`, it is about a share of that kind, of an earning with shares.

    Raises:
        InvalidInput: no such locale or time zone, or a type that is not about a share.
        SettingError: BUFFER_ENDPOINTS or a template cannot be used.
    """
    if locale is not None and find_locale(locale) is None:
        raise InvalidInput(f"locale {locale!r}: not one that Babel knows, such as en_PH or fil_PH")
    if time_zone is not None and find_zone(time_zone) is None:
        raise InvalidInput(f"time_zone {time_zone!r}: not in the IANA database, such as Asia/Manila")
    shares = [sample for sample in samples(type_) if sample.earning_id is not None]
    if kind is not None and not shares:
        raise InvalidInput(f"kind {kind}: a {type_} is about a job and not about a share")
    messages = _renderer(settings)
    shown = [
        (setting.channel, endpoint)
        for setting, endpoint in zip(
            settings.endpoints, configured_endpoints(settings.endpoints), strict=True
        )
        if endpoint.types is None or type_ in endpoint.types
    ]
    have = {channel for channel, _ in shown}
    for name, options in _STAND_INS.items():
        if name not in have:
            shown.append((name, make_endpoint(EndpointSetting(name=name, channel=name, **options))))
    for sample in samples(type_) if kind is None else shares:
        if kind != (None if sample.earning_id is None else sample.kind):
            continue
        contact = Contact(owner=sample.owner, locale=locale, time_zone=time_zone, email=ADDRESS)
        message = messages.render(sample, contact)
        for channel, endpoint in shown:
            yield Preview(
                endpoint=endpoint.name,
                channel=channel,
                to_payer=sample.to_payer,
                text=_preview(endpoint, message),
            )


def try_webhook(
    settings: Settings, url: str, *, secret: str | None, type_: str, allow_private: bool
) -> Tried:
    """Send a sample to a URL, with the options of the endpoint that has this URL, if there is one.

    Raises:
        InvalidInput: the URL or the secret cannot be used.
    """
    made_up = None
    options: dict[str, Any] = {}
    for setting in settings.endpoints:
        if setting.channel == "webhook" and setting.options.get("url") == url:
            options = setting.options
    if secret is not None:
        options = {**options, "secrets": [secret]}
    elif "secrets" not in options:
        made_up = "whsec_" + b64encode(secrets.token_bytes(32)).decode()
        options = {**options, "secrets": [made_up]}
    options = {**options, "url": url, "allow_private": allow_private or options.get("allow_private", False)}
    try:
        endpoint = make_endpoint(EndpointSetting(name="test", channel="webhook", **options))
    except SettingError as error:
        raise InvalidInput(str(error).removeprefix("BUFFER_ENDPOINTS: endpoint test: ")) from None
    number = secrets.choice(TEST_IDS)
    sample = replace(next(samples(type_)), notification_id=number, owner=TEST_OWNER, title=TEST_TITLE)
    message = _as_a_test(_renderer(settings).render(sample, None))
    began = time.perf_counter()
    failure = asyncio.run(_send(endpoint, message))
    return Tried(
        webhook_id=f"ntf_{number}",
        delivered=failure is None,
        outcome="delivered" if failure is None else failure,
        seconds=round(time.perf_counter() - began, 3),
        made_up_secret=made_up,
    )


async def _send(endpoint: Endpoint, message: Message) -> str | None:
    # A webhook does not use the database.
    async with endpoint.channel.open(engine=create_engine("postgresql+psycopg://")) as sender:
        try:
            await sender.send(message)
        except TryAgain as failure:
            return f"not accepted, would be tried again: {failure.reason}"
        except GiveUp as failure:
            return f"refused, would become a dead letter: {failure.reason}"
    return None


def _preview(endpoint: Endpoint, message: Message) -> str:
    if isinstance(endpoint.channel, Previewing):
        return endpoint.channel.preview(message)
    return NO_PREVIEW


def _as_a_test(message: Message) -> Message:
    """Return the message with `Test: ` before its titles, so that nobody takes it for real money."""
    title = shorten(f"Test: {message.title}", MESSAGE_TITLE_LENGTH_MAX)
    data = message.payload["data"]
    shown = {**data["message"], "title": title}
    return replace(message, title=title, payload={**message.payload, "data": {**data, "message": shown}})


def _renderer(settings: Settings) -> Messages:
    return Messages(templates=settings.templates, locale=settings.locale, time_zone=settings.time_zone)
