"""The channel email: real SMTP servers, with TLS and without, that take, refuse, defer and fall silent."""

import asyncio
import datetime as dt
import email
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from pydantic import ValidationError
from sqlalchemy import Engine, create_engine

from buffer_pipeline.contact import Contact, set_contact
from buffer_pipeline.delivery.channel import GiveUp, TryAgain, Unavailable, make_endpoint
from buffer_pipeline.delivery.drain import drain
from buffer_pipeline.delivery.email import MESSAGES_PER_CONNECTION_MAX, EmailChannel, EmailOptions
from buffer_pipeline.errors import SettingError
from buffer_pipeline.messages import Message, Messages, samples
from buffer_pipeline.settings import EndpointSetting
from buffer_pipeline_tests.builders import place_hold
from buffer_pipeline_tests.conftest import NOON

SECRET: Final = "hunter2"
SENDER: Final = "payments@market.example"


class Mailbox:
    """What a server does with mail; by default it takes it."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.peers: list[Any] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.answers: dict[str, list[str]] = {}
        self.silent_for_seconds = 0.0

    def answer(self, command: str, *answers: str) -> None:
        """Answer the next of a command so, one after the other."""
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
        """Take one password."""
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == SECRET.encode(), handled=False)


@dataclass(frozen=True)
class Authority:
    """Who vouches for servers: `file` is what clients trust."""

    ca: trustme.CA
    file: Path

    def server_tls(self) -> ssl.SSLContext:
        """Return what a server named localhost proves itself with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert("localhost").configure_cert(context)
        return context


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that no system knows."""
    ca = trustme.CA()
    file = tmp_path_factory.mktemp("tls") / "authority.pem"
    ca.cert_pem.write_to_path(str(file))
    return Authority(ca, file)


Serve = Callable[..., int]


@pytest.fixture
def mailbox() -> Mailbox:
    """What the test's servers do."""
    return Mailbox()


@pytest.fixture
def serve(mailbox: Mailbox) -> Iterator[Serve]:
    """Start a server on a free port and return the port."""
    controllers: list[Controller] = []

    def start(*, server_tls: ssl.SSLContext | None = None, **options: Any) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        controller = Controller(mailbox, hostname="127.0.0.1", port=port, ssl_context=server_tls, **options)
        controller.start()
        controllers.append(controller)
        return port

    yield start
    for controller in controllers:
        controller.stop(no_assert=True)


def options_for(port: int, **changes: Any) -> EmailOptions:
    """Return the options of a server without TLS, changed."""
    return EmailOptions(**{"host": "localhost", "port": port, "tls": "none", "sender": SENDER, **changes})


def mail_message(
    *,
    title: str | None = None,
    address: str | None = "w17@example.com",
    number: int = 7,
    renderer: Messages | None = None,
) -> Message:
    """Return a message about a job of this title."""
    contact = Contact(owner="worker-17", locale=None, time_zone=None, email=address)
    sample = replace(next(samples("PAYMENT_PENDING")), notification_id=number)
    return (renderer or Messages()).render(sample if title is None else replace(sample, title=title), contact)


def send(options: EmailOptions, messages: Sequence[Message]) -> list[BaseException | None]:
    """Send messages one after the other; return what each send raised."""

    async def run() -> list[BaseException | None]:
        outcomes: list[BaseException | None] = []
        async with EmailChannel(options).open(engine=NO_ENGINE) as sender:
            for message in messages:
                outcomes += await asyncio.gather(sender.send(message), return_exceptions=True)
        return outcomes

    return asyncio.run(run())


NO_ENGINE: Final[Engine] = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing")


# ---- the mail


def test_a_mail_says_it_as_text_and_as_html(serve: Serve, mailbox: Mailbox) -> None:
    """The owner gets both forms, from the sender, with an id and a date that no attempt changes."""
    message = mail_message()

    outcomes = send(
        options_for(serve(), sender_name="Márket, Inc.", reply_to="help@market.example"), [message, message]
    )

    assert outcomes == [None, None]
    mail, again = mailbox.mails
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content().strip() == message.text
    assert "<h1" in html.get_content()
    assert mail.get_content_type() == "multipart/alternative"
    assert mail["Subject"] == "Payment Pending - ₱1,250.50 💰"
    assert str(mail["From"]) == '"Márket, Inc." <payments@market.example>'
    assert mail["To"] == "w17@example.com"
    assert mail["Reply-To"] == "help@market.example"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"] == again["Message-ID"] == "<ntf-7@market.example>"
    assert mail["Date"].datetime == again["Date"].datetime == dt.datetime(2026, 3, 2, 12, tzinfo=dt.UTC)
    assert mail["X-Envelope"] == "payments@market.example w17@example.com"


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("tap\r\nBcc: all@example.com", "tap Bcc: all@example.com"),
        ("tap\n\n<html>", "tap <html>"),
        (
            "=?utf-8?q?=0d=0aBcc=3a_all=40example=2ecom?=",
            "= ?utf-8?q?=0d=0aBcc=3a_all=40example=2ecom?=",
        ),
        ("tap\u2028Bcc: x", "tap Bcc: x"),
    ],
)
def test_a_title_adds_no_header(
    serve: Serve, mailbox: Mailbox, tmp_path: Path, title: str, shown: str
) -> None:
    """In the subject too, by a template of one's own, a title is text: the headers and recipient stay."""
    (tmp_path / "payment_pending.txt.j2").write_text(
        "{% block title %}{{ work }}{% endblock %}{% block text %}x{% endblock %}"
    )
    renderer = Messages(templates=tmp_path)
    plain, message = (mail_message(title=each, renderer=renderer) for each in ("tap", title))

    outcomes = send(options_for(serve()), [plain, message])

    assert outcomes == [None, None]
    first, second = mailbox.mails
    assert first.keys() == second.keys()
    assert (first["Subject"], second["Subject"]) == ("'tap'", f"'{shown}'")
    assert second["To"] == "w17@example.com"
    assert second["X-Envelope"] == "payments@market.example w17@example.com"


@pytest.mark.parametrize("title", ["a\r\nBcc: all@example.com", "a\nb", "a\rb"])
def test_a_title_of_lines_is_refused_should_it_ever_come_here(
    serve: Serve, mailbox: Mailbox, title: str
) -> None:
    """Were a message to carry a broken title, it is given up and nothing is sent."""
    outcomes = send(options_for(serve()), [replace(mail_message(), title=title)])

    assert isinstance(outcomes[0], GiveUp)
    assert mailbox.mails == []


@pytest.mark.parametrize(
    "address", [None, "w17", "a@example.com, b@example.com", "a@example.com\r\nRCPT TO:<b@c>"]
)
def test_an_address_that_is_none_is_given_up(serve: Serve, mailbox: Mailbox, address: str | None) -> None:
    """An owner without a usable address gets no mail, and nobody else gets it."""
    outcomes = send(options_for(serve()), [mail_message(address=address)])

    assert isinstance(outcomes[0], GiveUp)
    assert mailbox.mails == []


@pytest.mark.parametrize(
    "title", ["Faucet 🚰👨‍👩‍👧‍👦", "תיקון ברז", "إصلاح الصنبور", "修理水龍頭", ".\n.", "wash " * 100]
)
def test_any_script_and_length_arrives(serve: Serve, mailbox: Mailbox, title: str) -> None:
    """Emoji, right-to-left text, dots and length come through unharmed, in lines that SMTP allows."""
    message = mail_message(title=title)

    outcomes = send(options_for(serve()), [message])

    assert outcomes == [None]
    body = mailbox.mails[0].get_body(("plain",))
    assert body is not None
    assert body.get_content().strip() == message.text
    assert max(len(line) for line in mailbox.mails[0].as_bytes().splitlines()) <= 998


def test_mail_goes_to_owners_with_an_address(engine: Engine, serve: Serve, mailbox: Mailbox) -> None:
    """A drain writes to the address of the contact; who has none has no mail waiting, now or later."""
    endpoint = make_endpoint(
        EndpointSetting(
            **{"name": "mail", "channel": "email", "host": "localhost", "port": serve(), "tls": "none",
               "sender": SENDER}
        )
    )  # fmt: skip
    with engine.begin() as connection:
        place_hold(connection, payee="worker-17")
        place_hold(connection, payee="worker-18")
        set_contact(connection, owner="worker-17", locale="de_DE", email="w17@example.com", now=NOON)

    drained = drain(engine, [endpoint], Messages())
    with engine.begin() as connection:
        set_contact(connection, owner="worker-18", email="w18@example.com", now=NOON)
    again = drain(engine, [endpoint], Messages())

    assert (drained.sent, drained.waiting, again.sent) == (1, 0, 0)
    (mail,) = mailbox.mails
    assert mail["To"] == "w17@example.com"
    assert mail["Subject"] == "Payment Pending - 1.000,00 PHP 💰"


# ---- the connection


def test_starttls_comes_before_the_password(serve: Serve, mailbox: Mailbox, authority: Authority) -> None:
    """The server proves who it is, then the password goes over TLS."""
    port = serve(
        tls_context=authority.server_tls(),
        require_starttls=True,
        auth_required=True,
        authenticator=mailbox.authenticate,
    )

    outcomes = send(
        options_for(port, tls="starttls", ca_file=authority.file, username="market", password=SECRET),
        [mail_message()],
    )

    assert outcomes == [None]
    assert mailbox.logins == [(b"market", SECRET.encode())]


def test_implicit_tls(serve: Serve, mailbox: Mailbox, authority: Authority) -> None:
    """TLS from the first byte."""
    port = serve(server_tls=authority.server_tls())

    outcomes = send(options_for(port, tls="implicit", ca_file=authority.file), [mail_message()])

    assert outcomes == [None]
    assert len(mailbox.mails) == 1


@pytest.mark.parametrize("case", ["no STARTTLS", "unknown authority", "other name"])
def test_nothing_goes_over_a_connection_that_is_not_secure(
    serve: Serve, mailbox: Mailbox, authority: Authority, case: str
) -> None:
    """No TLS, an unknown certificate or one for another name: no mail, no password, and a later attempt."""
    tls = {} if case == "no STARTTLS" else {"tls_context": authority.server_tls()}
    port = serve(authenticator=mailbox.authenticate, **tls)
    trusted = {} if case == "unknown authority" else {"ca_file": authority.file}
    host = "127.0.0.1" if case == "other name" else "localhost"

    outcomes = send(
        options_for(port, host=host, tls="starttls", username="market", password=SECRET, **trusted),
        [mail_message()],
    )

    assert isinstance(outcomes[0], Unavailable)
    assert SECRET not in str(outcomes[0])
    assert (mailbox.mails, mailbox.logins) == ([], [])


def test_a_connection_is_used_again(serve: Serve, mailbox: Mailbox) -> None:
    """Many mails go over one connection, and a new one is opened before the server tires of it."""
    count = MESSAGES_PER_CONNECTION_MAX + 5

    outcomes = send(options_for(serve()), [mail_message(number=number) for number in range(1, count + 1)])

    assert outcomes == [None] * count
    assert [mail["Message-ID"] for mail in mailbox.mails[:2]] == [
        "<ntf-1@market.example>",
        "<ntf-2@market.example>",
    ]
    assert len(set(mailbox.peers)) == 2


def test_at_most_so_many_connections(serve: Serve, mailbox: Mailbox) -> None:
    """Fifty sends at once go over three connections."""
    options = options_for(serve(), concurrency=3)

    async def run() -> None:
        async with EmailChannel(options).open(engine=NO_ENGINE) as sender:
            await asyncio.gather(*(sender.send(mail_message(number=number)) for number in range(1, 51)))

    asyncio.run(run())

    assert len(mailbox.mails) == 50
    assert len(set(mailbox.peers)) == 3


# ---- refusals


@pytest.mark.parametrize(
    ("command", "answer", "outcome", "named"),
    [
        ("RCPT", "550 no such user", GiveUp, "recipient: 550 no such user"),
        ("RCPT", "450 greylisted, come back", TryAgain, "recipient: 450 greylisted"),
        ("DATA", "554 looks like spam", GiveUp, "message: 554"),
        ("DATA", "452 disk full", TryAgain, "message: 452"),
        ("MAIL", "451 busy", TryAgain, "sender: 451"),
        ("MAIL", "553 sender not allowed", TryAgain, "sender: 553"),
    ],
)
def test_what_the_server_says_decides(
    serve: Serve, mailbox: Mailbox, command: str, answer: str, outcome: type[Exception], named: str
) -> None:
    """4xx is tried again, 5xx about the recipient or the mail is final; the next mail is not hurt by it."""
    mailbox.answer(command, answer)

    outcomes = send(options_for(serve()), [mail_message(number=1), mail_message(number=2)])

    assert type(outcomes[0]) is outcome
    assert named in str(outcomes[0])
    assert outcomes[1] is None
    assert [mail["Message-ID"] for mail in mailbox.mails] == ["<ntf-2@market.example>"]


def test_a_wrong_password_is_no_fault_of_the_message(
    serve: Serve, mailbox: Mailbox, authority: Authority
) -> None:
    """A refused login is tried again later, since somebody will mend it, and names no secret."""
    port = serve(tls_context=authority.server_tls(), auth_required=True, authenticator=mailbox.authenticate)

    outcomes = send(
        options_for(port, tls="starttls", ca_file=authority.file, username="market", password="wrong-1"),
        [mail_message()],
    )

    assert isinstance(outcomes[0], Unavailable)
    assert "login: 535" in str(outcomes[0])
    assert "wrong-1" not in str(outcomes[0])


def test_a_server_that_is_down_is_unavailable() -> None:
    """Nobody listens: every message waits."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    outcomes = send(options_for(port), [mail_message()])

    assert isinstance(outcomes[0], Unavailable)


def test_an_answer_that_comes_too_late_is_an_attempt_that_failed(serve: Serve, mailbox: Mailbox) -> None:
    """The server took the mail and fell silent: tried again, with the id that lets a reader dedupe."""
    mailbox.silent_for_seconds = 5
    options = options_for(serve(), timeout_seconds=0.5)

    outcomes = send(options, [mail_message()])

    assert isinstance(outcomes[0], Unavailable)
    assert [mail["Message-ID"] for mail in mailbox.mails] == ["<ntf-7@market.example>"]


def test_a_server_that_was_restarted_is_connected_to_anew(serve: Serve, mailbox: Mailbox) -> None:
    """A connection that the server ended while it was idle costs no attempt."""
    port = serve(timeout=0.2)

    async def run() -> None:
        async with EmailChannel(options_for(port)).open(engine=NO_ENGINE) as sender:
            await sender.send(mail_message(number=1))
            (idle,) = sender._idle
            while idle.client.is_connected:
                await asyncio.sleep(0.05)
            await sender.send(mail_message(number=2))

    asyncio.run(run())

    assert len(mailbox.mails) == 2
    assert len(set(mailbox.peers)) == 2


# ---- options


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sender": "nobody"}, "sender"),
        ({"sender": f"a@example.com\nBcc: {SECRET}"}, "sender"),
        ({"tls": "none", "username": "market", "password": SECRET}, "TLS"),
        ({"username": "market"}, "password"),
        ({"port": 0}, "port"),
        ({"tls": "maybe"}, "tls"),
        ({"ca_file": "/does/not/exist"}, "ca_file"),
        ({"pasword": SECRET}, "pasword"),
        ({"timeout_seconds": 900}, "timeout_seconds"),
    ],
)
def test_options_that_cannot_be_used_are_named_and_not_shown(changes: dict[str, Any], named: str) -> None:
    """The error names the endpoint and the option, and no secret."""
    options = {"name": "mail", "channel": "email", "host": "localhost", "sender": SENDER, **changes}

    with pytest.raises(SettingError, match="BUFFER_ENDPOINTS: endpoint mail") as refused:
        make_endpoint(EndpointSetting(**options))

    assert named in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_password_shows_nowhere() -> None:
    """Printed options have stars."""
    options = EmailOptions(host="localhost", sender=SENDER, username="market", password=SECRET)

    assert SECRET not in repr(options)
    with pytest.raises(ValidationError):
        EmailOptions(host="", sender=SENDER)


def test_a_preview_is_the_mail(serve: Serve, mailbox: Mailbox) -> None:
    """What is previewed is what is sent, in letters that people can read."""
    options = options_for(serve())

    message = mail_message(title="תיקון ברז")

    shown = EmailChannel(options).preview(message)
    previewed = email.message_from_string(shown, policy=default)
    send(options, [message])

    assert message.title in shown
    assert message.text in shown
    for header in ("Subject", "From", "To", "Message-ID", "Date"):
        assert previewed[header] == mailbox.mails[0][header]
