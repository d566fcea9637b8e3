"""A mail server for tests, and mails to it."""

import asyncio
import email
from collections.abc import Callable, Sequence
from dataclasses import replace
from email.message import EmailMessage
from email.policy import default
from typing import Any, Final

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from sqlalchemy import Engine, create_engine

from buffer_pipeline.notifications.channels.email import EmailChannel, EmailOptions
from buffer_pipeline.notifications.contact import Contact
from buffer_pipeline.notifications.messages import Message, Messages, samples

PASSWORD: Final = "hunter2"
SENDER: Final = "payments@market.example"


class Mailbox:
    """The behaviour of a mail server. By default it accepts mail."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.peers: list[Any] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.answers: dict[str, list[str]] = {}
        self.silent_for_seconds = 0.0

    def answer(self, command: str, *answers: str) -> None:
        """Return the next scripted answer to a command."""
        self.answers[command] = list(answers)

    def _next(self, command: str) -> str | None:
        answers = self.answers.get(command)
        return answers.pop(0) if answers else None

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if (answer := self._next("MAIL")) is not None:
            return answer
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if (answer := self._next("RCPT")) is not None:
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if (answer := self._next("DATA")) is not None:
            return answer
        assert isinstance(envelope.content, bytes)
        mail = email.message_from_bytes(envelope.content, policy=default)
        assert isinstance(mail, EmailMessage)
        mail["X-Envelope"] = f"{envelope.mail_from} {' '.join(envelope.rcpt_tos)}"
        self.mails.append(mail)
        self.peers.append(session.peer)
        await asyncio.sleep(self.silent_for_seconds)
        return "250 OK"

    def authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, data: Any
    ) -> Any:
        """Accept one password."""
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)


Serve = Callable[..., int]


def options_for(port: int, **changes: Any) -> EmailOptions:
    """Return the options of a server without TLS, some of them changed."""
    return EmailOptions(**{"host": "localhost", "port": port, "tls": "none", "sender": SENDER, **changes})


def mail_message(
    *,
    title: str | None = None,
    address: str | None = "w17@example.com",
    number: int = 7,
    renderer: Messages | None = None,
) -> Message:
    """Return a message about a job with this title."""
    contact = Contact(owner="worker-17", locale=None, time_zone=None, email=address)
    sample = replace(next(samples("PAYMENT_PENDING")), notification_id=number)
    return (renderer or Messages()).render(sample if title is None else replace(sample, title=title), contact)


def send(options: EmailOptions, messages: Sequence[Message]) -> list[BaseException | None]:
    """Send messages in order; return the exception of each send."""

    async def run() -> list[BaseException | None]:
        outcomes: list[BaseException | None] = []
        async with EmailChannel(options).open(engine=NO_ENGINE) as sender:
            for message in messages:
                outcomes += await asyncio.gather(sender.send(message), return_exceptions=True)
        return outcomes

    return asyncio.run(run())


NO_ENGINE: Final[Engine] = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
