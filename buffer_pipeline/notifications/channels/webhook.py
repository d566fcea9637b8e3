"""The channel `webhook`: JSON by POST, signed according to Standard Webhooks (standardwebhooks.com)."""

import asyncio
import binascii
import errno
import ipaddress
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import unquote, unquote_plus, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import Field, SecretStr, field_validator, model_validator
from sqlalchemy import Engine
from standardwebhooks import Webhook

from buffer_pipeline.notifications.channels.addresses import Names
from buffer_pipeline.notifications.channels.channel import ChannelOptions, GiveUp, TryAgain, Unavailable
from buffer_pipeline.notifications.messages import Message
from buffer_pipeline.notifications.sanitize import of_others

TRY_AGAIN: Final = frozenset({408, 409, 425, 429})
SERVER_ERRORS: Final = range(500, 600)
ANSWER_BYTES_MAX: Final = 64 * 1024
"""How much of an answer is read, so that the connection can be reused. A longer one closes it."""
EXCERPT_LENGTH_MAX: Final = 200
SECRET_LENGTH_MIN: Final = 4
"""Shorter parts of a URL are not secret, and occur in many words."""

_SECRET_BYTES: Final = range(24, 65)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_SPECIAL: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocols' own, and a cloud's metadata
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # protocols' own, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which leads to the IPv4 address inside it
        "3fff::/20",  # documentation
    )
)
"""Refused in addition to what Python's `is_global` refuses (IANA's registries of special addresses)."""


class WebhookOptions(ChannelOptions):
    """The URL of an endpoint, its secrets and what it may connect to."""

    url: str = Field(repr=False)
    """Its path and query may be secret, so they are never shown."""
    secrets: tuple[SecretStr, ...] = Field(min_length=1, max_length=2)
    """`whsec_` and base64. With two secrets, every message has a signature by each, so that the receiver can
    change from one to the other."""
    allow_private: bool = False
    """Whether private, loopback and link-local addresses, and http://, are allowed."""
    ca_file: Path | None = None
    """Certificates to trust instead of the system's, in PEM."""

    @field_validator("url")
    @classmethod
    def _is_an_address_of_the_web(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good or not value.isascii() or any(character <= " " for character in value):
            raise ValueError("not a URL such as https://backend.example.com/notifications")
        if "@" in parts.netloc or parts.fragment:
            raise ValueError("must not have a user, a password or a fragment")
        return value

    @field_validator("secrets")
    @classmethod
    def _are_secrets(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in value:
            text = secret.get_secret_value()
            try:
                length = len(binascii.a2b_base64(text.removeprefix("whsec_"), strict_mode=True))
            except (binascii.Error, ValueError):
                length = 0
            if not text.startswith("whsec_") or length not in _SECRET_BYTES:
                raise ValueError("each must be whsec_ and the base64 of 24 to 64 random bytes")
        return value

    @field_validator("ca_file")
    @classmethod
    def _is_there(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                ssl.create_default_context(cafile=value)
            except (OSError, ssl.SSLError) as error:
                raise ValueError(f"no certificates can be read from {value}: {error}") from None
        return value

    @model_validator(mode="after")
    def _stays_outside(self) -> "WebhookOptions":
        if self.allow_private:
            return self
        parts = urlsplit(self.url)
        if parts.scheme != "https":
            raise ValueError("url: needs https://, or allow_private for a network of your own")
        if is_private_literal(parts.hostname or ""):
            raise ValueError(f"url: {parts.hostname} is a private address; allow_private allows it")
        return self


class PrivateAddress(OSError):
    """A name resolves to a private address. It is refused before a packet is sent."""


def is_private(address: str) -> bool:
    """Return whether an IP address is not public, also if it is embedded in an IPv6 address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        elif ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip not in _GLOBAL_UNICAST:
            return True
    return not ip.is_global or ip.is_multicast or any(ip in network for network in _SPECIAL)


def is_private_literal(host: str) -> bool:
    """Return whether a URL's host is a private IP address."""
    try:
        return is_private(host)
    except ValueError:
        return False


class WebhookChannel:
    """Sends each message to one URL."""

    Options: ClassVar[type[WebhookOptions]] = WebhookOptions
    needs_address: ClassVar[bool] = False

    def __init__(self, options: WebhookOptions) -> None:
        self.options = options

    @asynccontextmanager
    async def open(self, *, engine: Engine) -> AsyncIterator["WebhookSender"]:  # noqa: ARG002 - a channel's signature
        """Keep connections open between messages."""
        options = self.options
        connector = aiohttp.TCPConnector(
            limit=options.concurrency,
            resolver=_Resolver(),
            ssl=ssl.create_default_context(cafile=options.ca_file),
            # Called with each address before it is connected to, whatever resolved the name.
            socket_factory=_socket if options.allow_private else _public_socket,
        )
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=options.timeout_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            # A proxy from the environment could connect to private addresses.
            trust_env=False,
        ) as session:
            yield WebhookSender(options, session)

    def preview(self, message: Message) -> str:
        """Return the request, signed at the current time."""
        body = body_of(message)
        headers = headers_of(message, body, signers_of(self.options), now=datetime.now(UTC))
        lines = [f"POST {self.options.url}", *(f"{name}: {value}" for name, value in headers.items())]
        return "\n".join([*lines, "", body])


class WebhookSender:
    """The open channel."""

    def __init__(self, options: WebhookOptions, session: aiohttp.ClientSession) -> None:
        self._url = options.url
        self._secret_parts = _secret_parts(options.url)
        self._timeout_seconds = options.timeout_seconds
        self._signers = signers_of(options)
        self._session = session

    async def send(self, message: Message) -> None:
        """POST the message's payload. It is delivered if the answer is 2xx.

        Raises:
            TryAgain, Unavailable: 408, 409, 425, 429, 5xx, or no answer.
            GiveUp: any other answer, also a redirect.
        """
        body = body_of(message)
        try:
            async with self._session.post(
                self._url,
                data=body.encode(),
                headers=headers_of(message, body, self._signers, now=datetime.now(UTC)),
                allow_redirects=False,
            ) as response:
                status, headers = response.status, response.headers
                excerpt = self._hidden(await _excerpt(response))
        except TimeoutError:
            raise Unavailable(f"no answer within {self._timeout_seconds:g} seconds") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(self._hidden(_fact(error))) from None
        judge(status, headers, excerpt)

    def _hidden(self, text: str) -> str:
        """Return a reason on one line, cut to its maximum length, without secret parts of the URL."""
        return of_others(self._secret_parts.sub("[…]", text))[:EXCERPT_LENGTH_MAX]


def body_of(message: Message) -> str:
    """Return the body, exactly as it is signed and sent."""
    return json.dumps(message.payload, ensure_ascii=False, separators=(",", ":"))


def signers_of(options: WebhookOptions) -> list[Webhook]:
    """Return one signer for each secret."""
    return [Webhook(secret.get_secret_value()) for secret in options.secrets]


def headers_of(message: Message, body: str, signers: Sequence[Webhook], *, now: datetime) -> dict[str, str]:
    """Return the headers, with a signature by each signer."""
    webhook_id = f"ntf_{message.notification_id}"
    return {
        "content-type": "application/json",
        "user-agent": "buffer-pipeline",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signer.sign(webhook_id, now, body) for signer in signers),
    }


def judge(status: int, headers: Mapping[str, str], excerpt: str) -> None:
    """Return if the answer means that the message is delivered.

    Raises:
        TryAgain, Unavailable, GiveUp: as `WebhookSender.send`.
    """
    if 200 <= status < 300:  # noqa: PLR2004 - RFC 9110, 15.3
        return
    reason = f"HTTP {status}{f': {excerpt}' if excerpt else ''}"
    after_seconds = retry_after(headers.get("Retry-After"), now=datetime.now(UTC))
    if status in SERVER_ERRORS or status == 429:  # noqa: PLR2004 - Too Many Requests
        raise Unavailable(reason, after_seconds)
    if status in TRY_AGAIN:
        raise TryAgain(reason, after_seconds)
    if 300 <= status < 400:  # noqa: PLR2004 - RFC 9110, 15.4
        raise GiveUp(f"HTTP {status}: redirects are not followed")
    raise GiveUp(reason)


def retry_after(value: str | None, *, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for; None if it is neither a number nor a date."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())


async def _excerpt(response: aiohttp.ClientResponse) -> str:
    """Return the beginning of the answer's body on one line. Errors are ignored: only the status matters."""
    beginning = bytearray()
    try:
        while len(beginning) <= ANSWER_BYTES_MAX and (chunk := await response.content.read(ANSWER_BYTES_MAX)):
            beginning += chunk
        if len(beginning) > ANSWER_BYTES_MAX:
            response.close()
    except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError):
        response.close()
    return " ".join(bytes(beginning[:ANSWER_BYTES_MAX]).decode("utf-8", "replace").split())


def _fact(error: aiohttp.ClientError | OSError) -> str:
    """Return what went wrong, without aiohttp's own text, which contains the URL."""
    if isinstance(error, aiohttp.ClientResponseError):
        said = " ".join(error.message.split())
    elif isinstance(error, aiohttp.ClientConnectorCertificateError):
        said = str(error.certificate_error)
    elif isinstance(error, OSError):
        said = error.strerror or (errno.errorcode.get(error.errno, "") if error.errno else "")
    else:
        said = ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _secret_parts(url: str) -> re.Pattern[str]:
    """Return a pattern that finds the parts of a URL that may be secret: path, query and their pieces.

    It finds them in any encoding, since a receiver may decode and encode them again. It tries the longest
    first.
    """
    parts = urlsplit(url)
    pairs = [pair.partition("=")[2] or pair for pair in parts.query.split("&")]
    pieces = {parts.path, parts.query, f"{parts.path}?{parts.query}", *parts.path.split("/"), *pairs}
    plain = pieces | {unquote(piece) for piece in pieces} | {unquote_plus(piece) for piece in pieces}
    secret = sorted((each for each in plain if len(each) >= SECRET_LENGTH_MIN), key=len, reverse=True)
    return re.compile("|".join("".join(map(_spelled, each)) for each in secret) or "(?!)", re.IGNORECASE)


def _spelled(character: str) -> str:
    """Return a pattern for a character: plain, percent-encoded, or after a backslash, as in JSON."""
    encoded = "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "replace"))
    return rf"\\?(?:{re.escape(character)}|{encoded}{'|[+]' if character == ' ' else ''})"


class _Resolver(AbstractResolver):
    """Looks up names on threads of its own. aiohttp's resolver would use the event loop's."""

    def __init__(self) -> None:
        self._names = Names()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                # A link-local address needs its interface, which getaddrinfo returns separately.
                host=f"{address[0]}%{address[3]}" if len(address) > 3 and address[3] else address[0],  # noqa: PLR2004
                port=address[1],
                family=found,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found, _, protocol, _, address in await self._names.look_up(host, port, family=family)
        ]

    async def close(self) -> None:
        pass


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _public_socket(address: tuple[Any, ...]) -> socket.socket:
    host = str(address[4][0])
    if is_private(host):
        raise PrivateAddress(errno.EACCES, f"{host} is a private address; allow_private allows it")
    return _socket(address)
