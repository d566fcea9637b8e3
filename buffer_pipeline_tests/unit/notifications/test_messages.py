"""Messages: texts, localized amounts and dates, and the JSON payload."""

import json
from dataclasses import replace
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest

from buffer_pipeline.errors import SettingError
from buffer_pipeline.notifications.contact import Contact
from buffer_pipeline.notifications.messages import TYPES, Messages, samples
from buffer_pipeline.tables import notification as notification_table
from buffer_pipeline_tests.support.messages import BUILT_IN, MANILA, sample

SCHEMA: Final[dict[str, Any]] = json.loads(
    (resources.files("buffer_pipeline") / "schemas" / "notification.v1.json").read_text(encoding="utf-8")
)


# ---- texts


@pytest.mark.parametrize(
    ("type_", "to_payer", "title", "text"),
    [
        (
            "PAYMENT_PENDING",
            False,
            "Payment Pending - ₱1,250.50 💰",
            "You earned ₱1,250.50 for 'Fix kitchen faucet'. Payment will be released on"
            " March 9, 2026, 8:00 PM (GMT+08:00) (7 days).",
        ),
        (
            "PAYMENT_RELEASED",
            False,
            "Payment Released! 🎉",
            "You received ₱1,250.50 for 'Fix kitchen faucet'. The funds have been added to your wallet!",
        ),
        (
            "PAYMENT_FROZEN",
            False,
            "Payment On Hold - ₱1,250.50 ⏸️",
            "Your payment of ₱1,250.50 for 'Fix kitchen faucet' is frozen while a backjob is open."
            " It stays in your pending earnings until there is a decision.",
        ),
        (
            "PAYMENT_RESUMED",
            False,
            "Payment Resumed - ₱1,250.50 ▶️",
            "Your payment of ₱1,250.50 for 'Fix kitchen faucet' is no longer frozen. It will be released on"
            " March 9, 2026, 8:00 PM (GMT+08:00) (7 days).",
        ),
        (
            "PAYMENT_REFUNDED",
            False,
            "Payment Refunded - ₱1,250.50 ↩️",
            "₱1,250.50 for 'Fix kitchen faucet' was refunded to the client and is no longer in your pending"
            " earnings.",
        ),
        (
            "PAYMENT_REFUNDED",
            True,
            "Payment Refunded - ₱1,250.50 ↩️",
            "You were refunded ₱1,250.50 for 'Fix kitchen faucet'. The funds have been added to your wallet!",
        ),
        (
            "BACKJOB_RECEIVED",
            False,
            "Backjob Requested 🔧",
            "The client asked for a backjob on 'Fix kitchen faucet'."
            " Your payment is frozen until the backjob is decided.",
        ),
        (
            "BACKJOB_REJECTED",
            False,
            "Backjob Rejected",
            "The backjob on 'Fix kitchen faucet' was rejected. It no longer stops your payment.",
        ),
        (
            "BACKJOB_REJECTED",
            True,
            "Backjob Rejected",
            "Your backjob on 'Fix kitchen faucet' was rejected. It no longer stops the payment.",
        ),
        (
            "BACKJOB_APPROVED",
            False,
            "Backjob Approved",
            "The backjob on 'Fix kitchen faucet' was approved."
            " A separate message tells you the amount of each refund.",
        ),
        (
            "BACKJOB_APPROVED",
            True,
            "Backjob Approved",
            "Your backjob on 'Fix kitchen faucet' was approved."
            " A separate message tells you the amount of each refund.",
        ),
        (
            "EARNING_CLAWED_BACK",
            False,
            "Payment Taken Back - ₱1,250.50",
            "₱1,250.50 of what you earned for 'Fix kitchen faucet' was taken back."
            " Reason: chargeback of 2 March",
        ),
        (
            "DEBT_RECOVERED",
            False,
            "Debt Paid - ₱1,250.50",
            "₱1,250.50 of your balance has paid what you owe for 'Fix kitchen faucet'."
            " Reason: chargeback of 2 March\n\nYou owe nothing more for it.",
        ),
        (
            "DEBT_FORGIVEN",
            False,
            "Debt Forgiven - ₱1,250.50",
            "You no longer owe ₱1,250.50 for 'Fix kitchen faucet': it is forgiven, and nothing was taken from"
            " your balance for it. You owed it because money was taken back. Reason: chargeback of 2 March",
        ),
    ],
)
def test_each_type_has_a_text_for_each_reader(type_: str, to_payer: bool, title: str, text: str) -> None:
    """A worker in Manila reads what happened to which payment; the payer reads it from their side."""
    message = BUILT_IN.render(sample(type_, to_payer=to_payer), MANILA)

    assert (message.title, message.text) == (title, text)
    assert message.email == "w17@example.com"


def test_every_type_of_the_table_has_a_text() -> None:
    """A type that the books may write is one that has words."""
    constraints = {constraint.name: constraint for constraint in notification_table.constraints}
    check = str(constraints["notification_type_is_known"].sqltext)  # type: ignore[attr-defined]

    assert set(TYPES) == {part for part in check.split("'") if part.isupper() and "_" in part}


@pytest.mark.parametrize("type_", ["PAYMENT_PENDING", "PAYMENT_RESUMED"])
def test_a_release_date_that_is_past_is_not_announced(type_: str) -> None:
    """A payment that returns to the buffer after its date is due at once."""
    late = sample(type_)
    late = replace(late, release_date=late.created_at - timedelta(hours=3))

    message = BUILT_IN.render(late, MANILA)

    assert "2026" not in message.text
    assert message.text.endswith("released within the hour.")


def test_freeze_without_a_backjob_does_not_mention_one() -> None:
    """An admin's freeze does not blame the client."""
    message = BUILT_IN.render(sample("PAYMENT_FROZEN", backjob_id=None), None)

    assert "backjob" not in message.text
    assert "while it is checked." in message.text


# ---- amounts and dates


@pytest.mark.parametrize(
    ("days", "output"),
    [
        (0.02, "1 hour"),
        (1.5, "36 hours"),
        (2, "2 days"),
        (7, "7 days"),
        (11, "11 days"),
        (18, "18 days"),
        (45, "45 days"),
        (400, "400 days"),
    ],
)
def test_duration_is_in_days_or_hours(days: float, output: str) -> None:
    """Days from two days on, otherwise hours; never rounded to weeks or months."""
    pending = sample("PAYMENT_PENDING")
    pending = replace(pending, release_date=pending.created_at + timedelta(days=days))

    assert BUILT_IN.render(pending, None).text.endswith(f"({output}).")


@pytest.mark.parametrize(
    ("locale", "time_zone", "amount", "date"),
    [
        ("en_US", "UTC", "₱1,250.50", "March 9, 2026, 12:00 PM (UTC)"),
        ("de_DE", "Europe/Berlin", "1.250,50 PHP", "9. März 2026, 13:00 (GMT+01:00)"),
        ("fil_PH", "Asia/Manila", "₱1,250.50", "Marso 9, 2026, 8:00 PM (GMT+08:00)"),
        ("ja_JP", "Asia/Tokyo", "PHP1,250.50", "2026年3月9日 21:00 (GMT+09:00)"),
        ("en_US", "America/New_York", "₱1,250.50", "March 9, 2026, 8:00 AM (GMT-04:00)"),
    ],
)
def test_amounts_and_dates_follow_the_locale(locale: str, time_zone: str, amount: str, date: str) -> None:
    """With its signs and separators. A time has its zone."""
    contact = Contact(owner="worker-17", locale=locale, time_zone=time_zone, email=None)

    message = BUILT_IN.render(sample("PAYMENT_PENDING"), contact)

    assert amount in message.text
    assert date in message.text


@pytest.mark.parametrize(
    ("currency", "places", "amount_minor", "amount", "plain"),
    [
        ("JPY", 0, 1_250, "¥1,250", "1250"),
        ("IQD", 3, 1_036_345, "IQD1,036.345", "1036.345"),
        ("PHP", 2, 5, "₱0.05", "0.05"),
        ("PHP", 2, 10**15, "₱10,000,000,000,000.00", "10000000000000.00"),
    ],
)
def test_amounts_have_the_places_of_the_books(
    currency: str, places: int, amount_minor: int, amount: str, plain: str
) -> None:
    """Even if everyday use has fewer. Nothing is rounded."""
    message = BUILT_IN.render(sample(currency=currency, places=places, amount_minor=amount_minor), None)

    assert f"You received {amount} for" in message.text
    assert message.payload["data"]["amount"] == plain


def test_owner_without_a_contact_gets_the_default_locale() -> None:
    """And the default time zone of the settings."""
    messages = Messages(locale="de_DE", time_zone="Europe/Berlin")
    unknown_zone = Contact(owner="worker-17", locale="xx", time_zone="Mars/Base", email=None)

    texts = {messages.render(sample("PAYMENT_PENDING"), contact).text for contact in (None, unknown_zone)}

    assert len(texts) == 1
    assert "9. März 2026, 13:00 (GMT+01:00)" in texts.pop()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"locale": "xx_YY"}, "BUFFER_LOCALE"),
        ({"locale": "../../etc"}, "BUFFER_LOCALE"),
        ({"time_zone": "Mars/Base"}, "BUFFER_TIME_ZONE"),
        ({"time_zone": "../../../etc/passwd"}, "BUFFER_TIME_ZONE"),
        ({"templates": Path("/does/not/exist")}, "BUFFER_TEMPLATES"),
    ],
)
def test_invalid_settings_are_refused_by_name(options: dict[str, Any], named: str) -> None:
    """When the renderer is created, before anything is claimed."""
    with pytest.raises(SettingError, match=named):
        Messages(**options)


# ---- the payload


def test_the_payload_of_every_type_follows_the_published_schema() -> None:
    """In JSON's own types."""
    validator = jsonschema.Draft202012Validator(
        SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    validator.check_schema(SCHEMA)

    seen = set()
    for notification in samples():
        payload = BUILT_IN.render(notification, MANILA).payload
        validator.validate(json.loads(json.dumps(payload)))
        seen.add(payload["type"])

    assert seen == set(SCHEMA["properties"]["type"]["enum"])


def test_payload_is_not_localized() -> None:
    """It has ids, the plain amount and UTC, whatever the owner's locale."""
    metadata = {"amount": "{{ 7 * 7 }}\u202e", "n": 17, "yes": True, "nothing": None}
    message = BUILT_IN.render(
        sample("PAYMENT_PENDING", title="  <b>a\u202etitle</b>", metadata=metadata), MANILA
    )

    assert message.payload == {
        "type": "payment.pending",
        "timestamp": "2026-03-02T12:00:00Z",
        "data": {
            "schema": 1,
            "notification_id": 1,
            "owner": "worker-17",
            "hold_id": 41,
            "backjob_id": None,
            "job": "job-8",
            "title": "  <b>a\u202etitle</b>",
            "currency": "PHP",
            "amount": "1250.50",
            "release_date": "2026-03-09T12:00:00Z",
            "left_amount": None,
            "reason": None,
            "payee_text": None,
            "metadata": metadata,
            "kind": "PAYEE",
            "earning_id": None,
            "earning_amount": None,
            "shares": [],
            "payout_id": None,
            "account": None,
            "message": {"title": message.title, "text": message.text},
        },
    }


@pytest.mark.parametrize(
    ("type_", "line"),
    [
        (
            "EARNING_CLAWED_BACK",
            "Your balance did not cover ₱450.00 of it. You owe this amount, and your next payments will pay"
            " it first.",
        ),
        ("DEBT_RECOVERED", "You still owe ₱450.00."),
    ],
)
def test_what_is_owed_is_told(type_: str, line: str) -> None:
    """In the text, and in the payload as `left_amount`, with the reason."""
    *_, sample = samples(type_)

    message = BUILT_IN.render(sample, MANILA)

    assert message.text.split("\n")[-1] == line
    notified = message.payload["data"]
    assert (notified["left_amount"], notified["reason"]) == ("450.00", "chargeback of 2 March")


def test_a_long_reason_is_cut_and_harmless() -> None:
    """Somebody typed it: it is on one line, and is a value in the template."""
    *_, sample = samples("EARNING_CLAWED_BACK")
    reason = "{{ owner }}\u202e\n" + "x" * 1_000

    message = BUILT_IN.render(replace(sample, reason=reason), MANILA)

    first = message.text.split("\n")[0]
    assert "Reason: {{ owner }} xxx" in first
    assert len(first) < 400
    assert message.payload["data"]["reason"] == reason


def test_returned_payout_has_the_banks_reason() -> None:
    """In the text and in the payload, with the masked account; what was sent before does not have it."""
    (sample,) = samples("PAYOUT_RETURNED")

    message = BUILT_IN.render(sample, MANILA)

    assert message.title == "Payout Returned - ₱1,250.50 ↩️"
    assert message.text == (
        "Your payout of ₱1,250.50 to your account DE****3000 came back. Your bank says: AC04 account closed."
        " The money is in your wallet again. Please check your account before the next payout."
    )
    notified = message.payload["data"]
    assert (notified["payout_id"], notified["account"], notified["reason"]) == (
        6,
        "DE****3000",
        "AC04 account closed",
    )
    assert (notified["hold_id"], notified["job"]) == (None, None)
    late = BUILT_IN.render(replace(sample, type="PAYOUT_SENT"), MANILA)
    assert late.payload["data"]["reason"] is None


def test_released_part_names_the_rest_and_its_date() -> None:
    """In the text, and in the payload as `left_amount` and `release_date`."""
    *_, sample = samples("PAYMENT_RELEASED")

    message = BUILT_IN.render(sample, MANILA)

    assert message.title == "Payment Partly Released! 🎉"
    assert message.text.split("\n") == [
        "You received ₱250.50 for 'Fix kitchen faucet'. The funds have been added to your wallet!",
        "₱1,000.00 is still held until March 9, 2026, 8:00 PM (GMT+08:00).",
    ]
    notified = message.payload["data"]
    assert (notified["amount"], notified["left_amount"]) == ("250.50", "1000.00")
    assert notified["release_date"] == "2026-03-09T12:00:00Z"
