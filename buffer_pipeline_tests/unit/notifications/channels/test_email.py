"""The email channel: the mail that a server gets, and the options."""

import datetime as dt
import email
from dataclasses import replace
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import Engine

from buffer_pipeline.errors import SettingError
from buffer_pipeline.notifications.channels.channel import GiveUp, make_endpoint
from buffer_pipeline.notifications.channels.email import EmailChannel, EmailOptions
from buffer_pipeline.notifications.contact import set_contact
from buffer_pipeline.notifications.drain import drain
from buffer_pipeline.notifications.messages import Messages
from buffer_pipeline.settings import EndpointSetting
from buffer_pipeline_tests.support.builders import NOON, place_hold
from buffer_pipeline_tests.support.mail import (
    PASSWORD,
    SENDER,
    Mailbox,
    Serve,
    mail_message,
    options_for,
    send,
)

# ---- the mail


def test_mail_has_text_and_html(serve: Serve, mailbox: Mailbox) -> None:
    """From the sender, with an id and a date that stay the same in every attempt."""
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
    """In the subject, even by a custom template, a title is text. Headers and recipient stay the same."""
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
def test_multi_line_title_is_refused(serve: Serve, mailbox: Mailbox, title: str) -> None:
    """A message with such a title is given up, and nothing is sent."""
    outcomes = send(options_for(serve()), [replace(mail_message(), title=title)])

    assert isinstance(outcomes[0], GiveUp)
    assert mailbox.mails == []


@pytest.mark.parametrize(
    "address", [None, "w17", "a@example.com, b@example.com", "a@example.com\r\nRCPT TO:<b@c>"]
)
def test_invalid_address_is_given_up(serve: Serve, mailbox: Mailbox, address: str | None) -> None:
    """Nobody gets the mail."""
    outcomes = send(options_for(serve()), [mail_message(address=address)])

    assert isinstance(outcomes[0], GiveUp)
    assert mailbox.mails == []


@pytest.mark.parametrize(
    "title", ["Faucet 🚰👨‍👩‍👧‍👦", "תיקון ברז", "إصلاح الصنبور", "修理水龍頭", ".\n.", "wash " * 100]
)
def test_any_script_and_length_arrives(serve: Serve, mailbox: Mailbox, title: str) -> None:
    """Emoji, right-to-left text, leading dots and long text arrive unchanged, in lines that SMTP allows."""
    message = mail_message(title=title)

    outcomes = send(options_for(serve()), [message])

    assert outcomes == [None]
    body = mailbox.mails[0].get_body(("plain",))
    assert body is not None
    assert body.get_content().strip() == message.text
    assert max(len(line) for line in mailbox.mails[0].as_bytes().splitlines()) <= 998


def test_mail_goes_to_owners_with_an_address(engine: Engine, serve: Serve, mailbox: Mailbox) -> None:
    """A drain sends to the contact's address. For an owner without one, no mail waits, now or later."""
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


# ---- options


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sender": "nobody"}, "sender"),
        ({"sender": f"a@example.com\nBcc: {PASSWORD}"}, "sender"),
        ({"tls": "none", "username": "market", "password": PASSWORD}, "TLS"),
        ({"username": "market"}, "password"),
        ({"port": 0}, "port"),
        ({"tls": "maybe"}, "tls"),
        ({"ca_file": "/does/not/exist"}, "ca_file"),
        ({"pasword": PASSWORD}, "pasword"),
        ({"timeout_seconds": 900}, "timeout_seconds"),
    ],
)
def test_invalid_options_are_named_without_secrets(changes: dict[str, Any], named: str) -> None:
    """The error has the endpoint and the option."""
    options = {"name": "mail", "channel": "email", "host": "localhost", "sender": SENDER, **changes}

    with pytest.raises(SettingError, match="BUFFER_ENDPOINTS: endpoint mail") as refused:
        make_endpoint(EndpointSetting(**options))

    assert named in str(refused.value)
    assert PASSWORD not in str(refused.value)


def test_a_password_shows_nowhere() -> None:
    """It is masked in printed options."""
    options = EmailOptions(host="localhost", sender=SENDER, username="market", password=PASSWORD)

    assert PASSWORD not in repr(options)
    with pytest.raises(ValidationError):
        EmailOptions(host="", sender=SENDER)


def test_a_preview_is_the_mail(serve: Serve, mailbox: Mailbox) -> None:
    """The preview is the sent mail, in readable characters."""
    options = options_for(serve())

    message = mail_message(title="תיקון ברז")

    shown = EmailChannel(options).preview(message)
    previewed = email.message_from_string(shown, policy=default)
    send(options, [message])

    assert message.title in shown
    assert message.text in shown
    for header in ("Subject", "From", "To", "Message-ID", "Date"):
        assert previewed[header] == mailbox.mails[0][header]
