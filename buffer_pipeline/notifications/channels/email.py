"""The channel `email`: SMTP over TLS, over a few connections that are reused.

After a 4xx answer the message is tried again. A 5xx answer about the recipient or the message is final
(RFC 5321, 4.2.1). After an error that is not about the message (no TLS, a refused password or sender) it is
tried again, because somebody will correct the configuration.
"""

import asyncio
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.policy import SMTPUTF8
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Final, Self

import aiosmtplib
from pydantic import Field, SecretStr, field_validator, model_validator
from sqlalchemy import Engine

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.notifications.channels.addresses import AddressInfo, Names
from buffer_pipeline.notifications.channels.channel import (
    SEND_SECONDS_MAX,
    ChannelOptions,
    GiveUp,
    NothingToSend,
    TryAgain,
    Unavailable,
)
from buffer_pipeline.notifications.contact import require_address
from buffer_pipeline.notifications.messages import Message
from buffer_pipeline.notifications.sanitize import one_line, shorten

MESSAGES_PER_CONNECTION_MAX: Final = 100
"""Many servers close a connection after more messages."""

_FINAL_FROM: Final = 500
_SERVICE_CLOSING: Final = 421
_SENDER_NAME_LENGTH_MAX: Final = 100
_FAILURE_LENGTH_MAX: Final = 320


class Tls(StrEnum):
    """How a connection is encrypted: from its beginning, by STARTTLS (required), or not at all."""

    IMPLICIT = "implicit"
    STARTTLS = "starttls"
    NONE = "none"


_PORTS: Final = {Tls.IMPLICIT: 465, Tls.STARTTLS: 587, Tls.NONE: 25}


class EmailOptions(ChannelOptions):
    """The mail server, the login and the sender."""

    host: str = Field(min_length=1, max_length=253)
    port: int | None = Field(default=None, ge=1, le=65535)
    tls: Tls = Tls.STARTTLS
    ca_file: Path | None = None
    """Certificate authorities to trust instead of the system's."""
    username: str | None = None
    password: SecretStr | None = None
    sender: str
    sender_name: str = Field(default="", max_length=_SENDER_NAME_LENGTH_MAX)
    reply_to: str | None = None
    concurrency: int = Field(default=4, ge=1, le=50)
    """How many connections are open."""
    timeout_seconds: float = Field(default=SEND_SECONDS_MAX, gt=0, le=SEND_SECONDS_MAX)

    @field_validator("sender", "reply_to")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        try:
            return None if value is None else require_address(value)
        except InvalidInput:
            raise ValueError("not an address such as payments@example.com") from None

    @field_validator("ca_file")
    @classmethod
    def _can_be_read(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                ssl.create_default_context(cafile=value)
            except (OSError, ssl.SSLError):
                raise ValueError("not a readable file of certificates") from None
        return value

    @model_validator(mode="after")
    def _keeps_the_password_secret(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password come together")
        if self.tls is Tls.NONE and self.password is not None:
            raise ValueError('a password goes over TLS only; tls is "none"')
        return self


class EmailChannel:
    """Sends mail to owners with a mail address."""

    Options: ClassVar[type[EmailOptions]] = EmailOptions
    needs_address: ClassVar[bool] = True

    def __init__(self, options: EmailOptions) -> None:
        self.options = options

    @asynccontextmanager
    async def open(self, *, engine: Engine) -> AsyncIterator["EmailSender"]:  # noqa: ARG002 - a channel's signature
        """Yield a sender. It connects when the first message is sent."""
        sender = EmailSender(self.options)
        try:
            yield sender
        finally:
            await sender.close()

    def preview(self, message: Message) -> str:
        """Return the mail before its text is encoded for sending.

        Raises:
            NothingToSend: the owner has no address that mail can be sent to.
        """
        mail = write_mail(message, self.options, encoding="8bit")
        return mail.as_bytes(policy=SMTPUTF8.clone(linesep="\n")).decode()


def write_mail(
    message: Message, options: EmailOptions, *, encoding: str = "quoted-printable"
) -> EmailMessage:
    """Return the mail, as plain text and HTML. Its Message-ID is the same in every attempt.

    Raises:
        NothingToSend: the owner has no address that mail can be sent to.
    """
    if message.email is None:
        raise NothingToSend(f"owner {message.owner}: has no mail address any more")
    domain = options.sender.rpartition("@")[2]
    try:
        mail = EmailMessage(policy=SMTP_POLICY)
        mail["From"] = Address(
            display_name=_unencoded(one_line(options.sender_name)), addr_spec=options.sender
        )
        mail["To"] = Address(addr_spec=require_address(message.email))
        if options.reply_to is not None:
            mail["Reply-To"] = Address(addr_spec=options.reply_to)
        mail["Subject"] = _unencoded(message.title)
        mail["Date"] = message.created_at.astimezone(UTC)
        mail["Message-ID"] = f"<ntf-{message.notification_id}@{domain}>"
        # RFC 3834: automatic replies must not answer this mail.
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.text + "\n", cte=encoding)
        mail.add_alternative(message.html, subtype="html", cte=encoding)
    except (ValueError, MessageError) as error:
        raise NothingToSend(f"cannot be written as mail: {shorten(one_line(str(error)), 200)}") from None
    return mail


def _unencoded(text: str) -> str:
    # EmailMessage would read =?utf-8?q?=0d=0aBcc=3a…?= as an encoded word (RFC 2047), decode it and write its
    # line break. A title could add a header that way.
    return text.replace("=?", "= ?")


class EmailSender:
    """Connections to one server. Each sends one message at a time."""

    def __init__(self, options: EmailOptions) -> None:
        self._options = options
        self._tls = (
            ssl.create_default_context(cafile=options.ca_file) if options.tls is not Tls.NONE else None
        )
        self._secret_parts = _secret_parts(options)
        self._names = Names()
        self._idle: list[_Connection] = []
        self._free_connections = asyncio.Semaphore(options.concurrency)

    async def send(self, message: Message) -> None:
        """Send one mail to the server.

        Raises:
            TryAgain: a 4xx answer; Unavailable, if the server cannot be used at all.
            GiveUp: a 5xx answer about the recipient or the message, or no usable address.
        """
        mail = write_mail(message, self._options)
        async with self._free_connections:
            try:
                async with asyncio.timeout(self._options.timeout_seconds):
                    await self._send(mail)
            except TimeoutError:
                raise Unavailable(f"no answer within {self._options.timeout_seconds:g} s") from None
            except aiosmtplib.SMTPException as error:
                failure = _failure(error)
                # Replace secrets first. After cutting, a part of a password might remain.
                reason = shorten(self._hidden(failure.reason), _FAILURE_LENGTH_MAX)
                raise type(failure)(reason) from None
            except OSError as error:
                raise Unavailable(shorten(f"connection: {_said(error)}", _FAILURE_LENGTH_MAX)) from None

    def _hidden(self, reason: str) -> str:
        """Return a reason without the login: a server may repeat it in its answer."""
        for part in self._secret_parts:
            reason = reason.replace(part, "[…]")
        return reason

    async def close(self) -> None:
        """Close all connections."""
        while self._idle:
            await self._idle.pop().leave()

    async def _send(self, mail: EmailMessage) -> None:
        connection = await self._connected()
        try:
            await connection.client.send_message(mail)
        except (aiosmtplib.SMTPRecipientsRefused, aiosmtplib.SMTPDataError, aiosmtplib.SMTPSenderRefused):
            # The server answered, so the connection can be reused unless the server closed it.
            await self._keep(connection)
            raise
        except BaseException:
            # The state of the SMTP session is unknown.
            connection.client.close()
            raise
        await self._keep(connection)

    async def _connected(self) -> "_Connection":
        while self._idle:
            connection = self._idle.pop()
            try:
                # The server may have closed it while it was idle.
                await connection.client.noop()
            except (aiosmtplib.SMTPException, OSError):
                connection.client.close()
            except BaseException:
                connection.client.close()
                raise
            else:
                return connection
        connection = _Connection(self._options, self._tls)
        try:
            await connection.connect(self._names)
        except BaseException:
            connection.client.close()
            raise
        return connection

    async def _keep(self, connection: "_Connection") -> None:
        connection.messages += 1
        if connection.messages >= MESSAGES_PER_CONNECTION_MAX or not connection.client.is_connected:
            await connection.leave()
        else:
            self._idle.append(connection)


class _Connection:
    """One connection, and how many messages it has sent."""

    def __init__(self, options: EmailOptions, tls: ssl.SSLContext | None) -> None:
        self.messages = 0
        self._host, self._port = options.host, options.port or _PORTS[options.tls]
        self.client = aiosmtplib.SMTP(
            hostname=options.host,
            use_tls=options.tls is Tls.IMPLICIT,
            # True refuses a server without STARTTLS; None would continue unencrypted.
            start_tls=options.tls is Tls.STARTTLS,
            tls_context=tls,
            username=options.username,
            password=None if options.password is None else options.password.get_secret_value(),
            timeout=options.timeout_seconds,
        )

    async def connect(self, names: Names) -> None:
        """Connect, say EHLO and log in.

        Raises:
            OSError, aiosmtplib.SMTPException: the server does not answer, or not as the options need.
        """
        # Otherwise the client would look up both names on the event loop's threads.
        own_name = await names.run(socket.getfqdn)
        connected = await _connected_socket(await names.look_up(self._host, self._port))
        # From here on the client closes the socket.
        await self.client.connect(sock=connected, local_hostname=own_name)

    async def leave(self) -> None:
        """Say QUIT, for at most a second, and close."""
        try:
            async with asyncio.timeout(1):
                await self.client.quit()
        except (aiosmtplib.SMTPException, OSError):
            pass  # The connection is closed anyway.
        finally:
            self.client.close()


async def _connected_socket(addresses: Sequence[AddressInfo]) -> socket.socket:
    """Return a connection to the first address that answers."""
    failure: OSError = ConnectionError("no address")
    for family, kind, protocol, _, address in addresses:
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            await asyncio.get_running_loop().sock_connect(made, address)
        except OSError as error:
            made.close()
            failure = error
        except BaseException:
            made.close()
            raise
        else:
            return made
    raise failure


def _secret_parts(options: EmailOptions) -> list[str]:
    """Return the password in the forms in which it is sent: for AUTH LOGIN, for AUTH PLAIN, and plain."""
    if options.password is None or options.username is None:
        return []
    password = options.password.get_secret_value()
    sent = (password, f"\0{options.username}\0{password}")
    return [*(b64encode(each.encode()).decode() for each in sent), password]


def _failure(error: aiosmtplib.SMTPException) -> TryAgain | GiveUp:
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        first = error.recipients[0]
        return _answered("recipient", first.code, first.message)
    if isinstance(error, aiosmtplib.SMTPDataError):
        return _answered("message", error.code, error.message)
    if isinstance(error, aiosmtplib.SMTPSenderRefused):
        return TryAgain(f"sender: {error.code} {_said(error.message)}")
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        return Unavailable(f"login: {error.code} {_said(error.message)}")
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return Unavailable(f"server: {error.code} {_said(error.message)}")
    return Unavailable(f"connection: {_said(error)}")


def _answered(about: str, code: int, text: str) -> TryAgain | GiveUp:
    reason = f"{about}: {code} {_said(text)}"
    if code >= _FINAL_FROM:
        return GiveUp(reason)
    return Unavailable(reason) if code == _SERVICE_CLOSING else TryAgain(reason)


def _said(what: object) -> str:
    return one_line(str(what)) or type(what).__name__
