"""The email channel with real SMTP servers, with and without TLS, that accept, refuse, defer or hang."""

import asyncio
import socket

import pytest
import trustme

from buffer_pipeline.notifications.channels.channel import GiveUp, TryAgain, Unavailable
from buffer_pipeline.notifications.channels.email import MESSAGES_PER_CONNECTION_MAX, EmailChannel
from buffer_pipeline_tests.support.certificates import Authority
from buffer_pipeline_tests.support.mail import (
    NO_ENGINE,
    PASSWORD,
    Mailbox,
    Serve,
    mail_message,
    options_for,
    send,
)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority that no system trusts."""
    ca = trustme.CA()
    file = tmp_path_factory.mktemp("tls") / "authority.pem"
    ca.cert_pem.write_to_path(str(file))
    return Authority(ca, file)


# ---- the connection


def test_starttls_comes_before_the_password(serve: Serve, mailbox: Mailbox, authority: Authority) -> None:
    """The server proves its identity, then the password goes over TLS."""
    port = serve(
        tls_context=authority.server_tls(),
        require_starttls=True,
        auth_required=True,
        authenticator=mailbox.authenticate,
    )

    outcomes = send(
        options_for(port, tls="starttls", ca_file=authority.file, username="market", password=PASSWORD),
        [mail_message()],
    )

    assert outcomes == [None]
    assert mailbox.logins == [(b"market", PASSWORD.encode())]


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
    """Without TLS, with an unknown certificate or one for another name, nothing is sent, and there is a later
    attempt.
    """
    tls = {} if case == "no STARTTLS" else {"tls_context": authority.server_tls()}
    port = serve(authenticator=mailbox.authenticate, **tls)
    trusted = {} if case == "unknown authority" else {"ca_file": authority.file}
    host = "127.0.0.1" if case == "other name" else "localhost"

    outcomes = send(
        options_for(port, host=host, tls="starttls", username="market", password=PASSWORD, **trusted),
        [mail_message()],
    )

    assert isinstance(outcomes[0], Unavailable)
    assert PASSWORD not in str(outcomes[0])
    assert (mailbox.mails, mailbox.logins) == ([], [])


def test_a_connection_is_used_again(serve: Serve, mailbox: Mailbox) -> None:
    """Many mails share a connection. A new one is opened before the server closes it."""
    count = MESSAGES_PER_CONNECTION_MAX + 5

    outcomes = send(options_for(serve()), [mail_message(number=number) for number in range(1, count + 1)])

    assert outcomes == [None] * count
    assert [mail["Message-ID"] for mail in mailbox.mails[:2]] == [
        "<ntf-1@market.example>",
        "<ntf-2@market.example>",
    ]
    assert len(set(mailbox.peers)) == 2


def test_number_of_connections_is_limited(serve: Serve, mailbox: Mailbox) -> None:
    """Fifty concurrent sends use three connections."""
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
def test_smtp_status_decides(
    serve: Serve, mailbox: Mailbox, command: str, answer: str, outcome: type[Exception], named: str
) -> None:
    """4xx is retried. 5xx about the recipient or the mail is final. The next mail is not affected."""
    mailbox.answer(command, answer)

    outcomes = send(options_for(serve()), [mail_message(number=1), mail_message(number=2)])

    assert type(outcomes[0]) is outcome
    assert named in str(outcomes[0])
    assert outcomes[1] is None
    assert [mail["Message-ID"] for mail in mailbox.mails] == ["<ntf-2@market.example>"]


def test_refused_login_is_retried(serve: Serve, mailbox: Mailbox, authority: Authority) -> None:
    """It is a configuration error, reported without secrets."""
    port = serve(tls_context=authority.server_tls(), auth_required=True, authenticator=mailbox.authenticate)

    outcomes = send(
        options_for(port, tls="starttls", ca_file=authority.file, username="market", password="wrong-1"),
        [mail_message()],
    )

    assert isinstance(outcomes[0], Unavailable)
    assert "login: 535" in str(outcomes[0])
    assert "wrong-1" not in str(outcomes[0])


def test_a_server_that_is_down_is_unavailable() -> None:
    """Every message waits."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    outcomes = send(options_for(port), [mail_message()])

    assert isinstance(outcomes[0], Unavailable)


def test_late_answer_is_a_failed_attempt(serve: Serve, mailbox: Mailbox) -> None:
    """The server accepted the mail and went silent. It is retried with the same id, so a reader can
    deduplicate.
    """
    mailbox.silent_for_seconds = 5
    options = options_for(serve(), timeout_seconds=0.5)

    outcomes = send(options, [mail_message()])

    assert isinstance(outcomes[0], Unavailable)
    assert [mail["Message-ID"] for mail in mailbox.mails] == ["<ntf-7@market.example>"]


def test_closed_idle_connection_costs_no_attempt(serve: Serve, mailbox: Mailbox) -> None:
    """The channel connects again."""
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
