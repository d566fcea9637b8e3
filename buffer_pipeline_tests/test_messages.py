"""Messages: their words, amounts and dates by locale, and whatever others may have written into them."""

import json
import sys
import unicodedata
from dataclasses import replace
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest

from buffer_pipeline.contact import Contact
from buffer_pipeline.errors import SettingError
from buffer_pipeline.messages import (
    TYPES,
    Messages,
    samples,
)
from buffer_pipeline.outbox import Notification
from buffer_pipeline.tables import notification as notification_table
from buffer_pipeline.texts import of_others, one_line, set_apart, shorten
from buffer_pipeline.words import TEXT_LENGTH_MAX, TITLE_LENGTH_MAX

BUILT_IN: Final = Messages()
SCHEMA: Final[dict[str, Any]] = json.loads(
    (resources.files("buffer_pipeline") / "schemas" / "notification.v1.json").read_text(encoding="utf-8")
)
MANILA: Final = Contact(owner="worker-17", locale="en_PH", time_zone="Asia/Manila", email="w17@example.com")

FAMILY: Final = "👨‍👩‍👧‍👦"
FLAG: Final = "🇵🇭"


def sample(type_: str = "PAYMENT_RELEASED", *, to_payer: bool = False, **changes: Any) -> Notification:
    """Return the type's sample for one of its readers, changed."""
    found = next(sample for sample in samples(type_) if sample.to_payer is to_payer)
    return replace(found, **changes)


def written(folder: Path, **templates: str) -> Path:
    """Write templates into a folder; two underscores of a name are a dot."""
    folder.mkdir(exist_ok=True)
    for name, source in templates.items():
        (folder / f"{name.replace('__', '.')}.j2").write_text(source, encoding="utf-8")
    return folder


# ---- the words


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
            " It stays in your pending earnings until that is decided.",
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
            " Its payment is frozen until the backjob is decided.",
        ),
        (
            "BACKJOB_REJECTED",
            False,
            "Backjob Rejected",
            "The backjob on 'Fix kitchen faucet' was rejected. It keeps your payment back no longer.",
        ),
        (
            "BACKJOB_REJECTED",
            True,
            "Backjob Rejected",
            "Your backjob on 'Fix kitchen faucet' was rejected. It keeps the payment back no longer.",
        ),
        (
            "BACKJOB_APPROVED",
            False,
            "Backjob Approved",
            "The backjob on 'Fix kitchen faucet' was approved."
            " Each refund has a message of its own, with its amount.",
        ),
        (
            "BACKJOB_APPROVED",
            True,
            "Backjob Approved",
            "Your backjob on 'Fix kitchen faucet' was approved."
            " Each refund has a message of its own, with its amount.",
        ),
    ],
)
def test_each_type_has_its_words_for_each_reader(type_: str, to_payer: bool, title: str, text: str) -> None:
    """A worker in Manila reads what happened to which payment; the payer reads it from their side."""
    message = BUILT_IN.render(sample(type_, to_payer=to_payer), MANILA)

    assert (message.title, message.text) == (title, text)
    assert message.email == "w17@example.com"


def test_the_types_are_those_of_the_table() -> None:
    """A type that the books may write is one that has words."""
    constraints = {constraint.name: constraint for constraint in notification_table.constraints}
    check = str(constraints["notification_type_is_known"].sqltext)  # type: ignore[attr-defined]

    assert set(TYPES) == {part for part in check.split("'") if part.isupper() and "_" in part}


@pytest.mark.parametrize("type_", ["PAYMENT_PENDING", "PAYMENT_RESUMED"])
def test_a_release_date_that_is_past_is_not_announced(type_: str) -> None:
    """A payment that comes back behind its date is due at once."""
    late = sample(type_)
    late = replace(late, release_date=late.created_at - timedelta(hours=3))

    message = BUILT_IN.render(late, MANILA)

    assert "2026" not in message.text
    assert message.text.endswith("released within the hour.")


def test_a_freeze_without_a_backjob_speaks_of_none() -> None:
    """An admin's freeze does not blame the client."""
    message = BUILT_IN.render(sample("PAYMENT_FROZEN", backjob_id=None), None)

    assert "backjob" not in message.text
    assert "while it is looked into." in message.text


# ---- amounts and dates


@pytest.mark.parametrize(
    ("days", "said"),
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
def test_a_duration_is_said_in_days_or_hours(days: float, said: str) -> None:
    """From two days on it is days, below hours: never weeks or months, which are rounded too far."""
    pending = sample("PAYMENT_PENDING")
    pending = replace(pending, release_date=pending.created_at + timedelta(days=days))

    assert BUILT_IN.render(pending, None).text.endswith(f"({said}).")


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
def test_amounts_and_dates_follow_the_owner(locale: str, time_zone: str, amount: str, date: str) -> None:
    """Each locale has its signs and separators; a time says which zone it is of."""
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
    """The places are those of the books, also where everyday use has fewer; nothing is rounded."""
    message = BUILT_IN.render(sample(currency=currency, places=places, amount_minor=amount_minor), None)

    assert f"You received {amount} for" in message.text
    assert message.payload["data"]["amount"] == plain


def test_without_a_contact_the_settings_speak() -> None:
    """An owner of whom nothing is known is written to in the locale and time zone of the settings."""
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
def test_settings_that_cannot_be_used_are_named(options: dict[str, Any], named: str) -> None:
    """A wrong setting is refused when the renderer is made, before anything is claimed."""
    with pytest.raises(SettingError, match=named):
        Messages(**options)


# ---- the document for programs


def test_the_payload_of_every_type_follows_the_published_schema() -> None:
    """What is sent is what the file promises, in JSON's own types."""
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


def test_the_payload_carries_the_facts_as_they_are() -> None:
    """A program reads ids, the plain amount and UTC, whatever the owner's locale makes of them."""
    message = BUILT_IN.render(sample("PAYMENT_PENDING", title="  <b>a\u202etitle</b>"), MANILA)

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
            "message": {"title": message.title, "text": message.text},
        },
    }


# ---- what others wrote


@pytest.mark.parametrize(
    "title",
    [
        "{{ 7 * 7 }}",
        "{% for x in range(10**9) %}x{% endfor %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{# gone #}",
        "%(amount)s {amount} {0.__class__}",
    ],
)
def test_a_title_is_never_a_template(title: str) -> None:
    """What looks like a template in a job's title is shown as it was written."""
    message = BUILT_IN.render(sample(title=title), None)

    assert f"'{title}'" in message.text


def test_markup_in_a_title_is_text_in_html() -> None:
    """A script in a title is shown in mail, and not run."""
    message = BUILT_IN.render(sample(title='<script>alert("1")</script><img src=x onerror=alert(1)>'), None)

    assert "<script" not in message.html
    assert "<img" not in message.html
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;" in message.html
    assert "<script>" in message.text


@pytest.mark.parametrize(
    "title",
    ["a\r\nBcc: all@example.com", "a\nb", "a\x00b\x1b[31m", "a\u2028b\u2029c", "a\x85b", "\ud800a"],
)
def test_a_title_cannot_break_a_line(title: str) -> None:
    """Line breaks and control characters of a title become spaces, so no header begins behind one."""
    overridden = sample("PAYMENT_PENDING", title=title)

    message = BUILT_IN.render(overridden, None)

    for text in (message.title, message.text):
        assert not {unicodedata.category(character) for character in text} & {"Cc", "Cs", "Zl", "Zp"}


def test_the_words_of_a_folder_cannot_break_a_title_either(tmp_path: Path) -> None:
    """A title of several lines is put on one."""
    folder = written(
        tmp_path,
        payment_released__txt="{% block title %}Paid\r\nBcc: x\n{{ work }}{% endblock %}"
        "{% block text %}One.\n\nTwo.\x07{% endblock %}",
    )

    message = Messages(templates=folder).render(sample(), None)

    assert message.title == "Paid Bcc: x 'Fix kitchen faucet'"
    assert message.text == "One.\n\nTwo."


def test_over_long_texts_are_cut_where_they_stand() -> None:
    """A title of 500 characters is shortened inside the sentence, which is said to its end."""
    message = BUILT_IN.render(sample(title="wash " * 100), None)

    assert len(message.title) <= TITLE_LENGTH_MAX
    assert "…'. The funds have been added to your wallet!" in message.text
    assert message.payload["data"]["title"] == "wash " * 100


def test_a_template_that_says_too_much_is_cut(tmp_path: Path) -> None:
    """Title and text keep their bounds whatever a template makes of them."""
    folder = written(
        tmp_path,
        payment_released__txt="{% block title %}{{ 'x' * 5000 }}{% endblock %}"
        "{% block text %}{{ 'y ' * 5000 }}{% endblock %}",
    )

    message = Messages(templates=folder).render(sample(), None)

    assert (len(message.title), message.title[-1]) == (TITLE_LENGTH_MAX, "…")
    assert len(message.text) <= TEXT_LENGTH_MAX


@pytest.mark.parametrize(
    "character",
    [FAMILY, FLAG, "👍🏽", "é", "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", "❤️"],
    ids=["family", "flag", "skin tone", "accent", "region", "variation"],
)
def test_what_people_count_as_one_is_not_cut_in_two(character: str) -> None:
    """An emoji of several code points is there as a whole, or not at all."""
    for length_max in range(10, 60):
        kept = shorten(character * 40, length_max)

        assert len(kept) <= length_max
        assert kept.removesuffix("…") == character * (len(kept.removesuffix("…")) // len(character))


def test_emoji_stay() -> None:
    """Joined emoji come through titles unchanged."""
    message = BUILT_IN.render(sample(title=f"Crib {FAMILY}{FLAG}"), None)

    assert f"'Crib {FAMILY}{FLAG}'" in message.text


def test_right_to_left_text_is_set_apart() -> None:
    """A Hebrew title inside an English sentence turns neither the amount nor the full stop beside it."""
    message = BUILT_IN.render(sample(title="תיקון ברז (2)"), None)

    assert "for '\u2068תיקון ברז (2)\u2069'. The funds" in message.text
    assert '<p dir="auto"' in message.html


def test_a_title_cannot_turn_the_sentence_around() -> None:
    """Overrides, which make 05.1 of 1.50, are taken out of what others wrote; isolates are closed by us."""
    message = BUILT_IN.render(sample(title="\u202e05.1\u2066 x \u2067"), None)

    assert "for '05.1 x'. The funds" in message.text
    assert of_others("\u202d\u2069\u200fa") == "a"


def test_in_a_locale_from_right_to_left_every_fact_is_set_apart() -> None:
    """An Arabic reader's amount and date keep their order inside whatever sentence they stand in."""
    contact = Contact(owner="worker-17", locale="ar_EG", time_zone="Africa/Cairo", email=None)

    message = BUILT_IN.render(sample("PAYMENT_PENDING"), contact)

    assert "\u2068Fix kitchen faucet\u2069" in message.text
    assert "\u20689 مارس 2026" in message.text
    assert message.text.count("\u2068") == message.text.count("\u2069") == 4
    assert set_apart("", in_right_to_left=True) == ""


def test_every_character_of_unicode_is_sorted_as_unicode_sorts_it() -> None:
    """No control character, separator or half of a pair passes, and each that runs leftwards is set apart."""
    for character in map(chr, range(sys.maxunicode + 1)):
        if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}:
            assert one_line(f"a{character}b") == "a b", hex(ord(character))
        if unicodedata.bidirectional(character) in {"R", "AL", "AN"}:
            assert len(set_apart(character, in_right_to_left=False)) == 3, hex(ord(character))


# ---- templates of one's own


def test_a_folder_overrides_a_type_and_adds_languages(tmp_path: Path) -> None:
    """The owner's locale is taken first, then its language, then the plain file, then the built-in one."""
    folder = written(
        tmp_path,
        payment_released__txt="{% block title %}Paid{% endblock %}{% block text %}{{ amount }}{% endblock %}",
        payment_released__fil__txt="{% block title %}Bayad na{% endblock %}"
        "{% block text %}Natanggap mo ang {{ amount }}.{% endblock %}",
    )
    messages = Messages(templates=folder)

    def title(type_: str, locale: str) -> str:
        contact = Contact(owner="worker-17", locale=locale, time_zone=None, email=None)
        return messages.render(sample(type_), contact).title

    assert title("PAYMENT_RELEASED", "fil_PH") == "Bayad na"
    assert title("PAYMENT_RELEASED", "de_DE") == "Paid"
    assert title("BACKJOB_REJECTED", "fil_PH") == "Backjob Rejected"


@pytest.mark.parametrize(
    ("file", "locale", "taken"),
    [
        ("zh_Hant", "zh_TW", True),
        ("zh_Hant", "zh_Hant_HK", True),
        ("zh_TW", "zh_TW", True),
        ("zh_Hant_TW", "zh_TW", True),
        ("zh_TW", "zh_HK", False),
        ("zh_Hant", "zh_CN", False),
        ("zh", "zh_TW", True),
        ("pt_BR", "pt_BR", True),
        ("pt_BR", "pt_PT", False),
    ],
)
def test_a_file_is_found_by_language_script_and_country(
    tmp_path: Path, file: str, locale: str, taken: bool
) -> None:
    """Readers of a script have its file, and a country's usual script need not be written."""
    words = "{% block title %}own{% endblock %}{% block text %}x{% endblock %}"
    folder = written(tmp_path, **{f"payment_released__{file}__txt": words})
    contact = Contact(owner="worker-17", locale=locale, time_zone=None, email=None)

    message = Messages(templates=folder).render(sample(), contact)

    assert (message.title == "own") is taken


def test_a_part_may_be_included(tmp_path: Path) -> None:
    """A file that is no type and ends in .j2 alone is there for others to include."""
    folder = written(
        tmp_path,
        payment_released__txt="{% block title %}x{% endblock %}"
        "{% block text %}{{ amount }}. {% include 'footer.j2' %}{% endblock %}",
        footer="Your market, {{ job }}",
    )

    message = Messages(templates=folder).render(sample(), None)

    assert message.text == "₱1,250.50. Your market, job-8"


def test_markup_is_escaped_in_what_the_html_includes(tmp_path: Path) -> None:
    """A part is escaped by who includes it, whatever its name ends in: raw in text, escaped in HTML."""
    folder = written(
        tmp_path,
        payment_released__txt="{% block title %}x{% endblock %}"
        "{% block text %}{{ work }}{% set paragraphs = [work] %}{% include 'footer.j2' %}{% endblock %}",
        message__html="{{ heading }}{% include 'footer.j2' %}",
        footer="<i>{{ paragraphs[0] }}</i>",
    )

    message = Messages(templates=folder).render(sample(title="<img src=x onerror=alert(1)>"), None)

    assert message.text == "'<img src=x onerror=alert(1)>'<i>'<img src=x onerror=alert(1)>'</i>"
    assert "<img" not in message.html
    assert "x<i>&#39;&lt;img src=x onerror=alert(1)&gt;&#39;" in message.html


def test_a_folder_overrides_the_html(tmp_path: Path) -> None:
    """The frame of mails is a template like the others, and escapes what it is given."""
    folder = written(tmp_path, message__html="<main>{{ heading }}{{ paragraphs[0] }}</main>")

    message = Messages(templates=folder).render(sample(title="<i>"), None)

    assert message.html.startswith("<main>Payment Released! 🎉You received")
    assert "&lt;i&gt;" in message.html


@pytest.mark.parametrize(
    ("name", "source", "named"),
    [
        ("payment_released__txt", "{% block title %}x{% endblock %}", "no block text"),
        ("payment_released__txt", "\n\n{% block title %}x", "payment_released.txt.j2, line 3"),
        (
            "payment_released__txt",
            "{% block title %}{{ amuont }}{% endblock %}{% block text %}x{% endblock %}",
            "amuont",
        ),
        (
            "payment_released__txt",
            "{% block title %} {% endblock %}{% block text %}x{% endblock %}",
            "block title",
        ),
        (
            "payment_released__txt",
            "{% block title %}{{ title.__class__.__mro__ }}{% endblock %}{% block text %}x{% endblock %}",
            "unsafe",
        ),
        ("payment_released__klingon__txt", "x", "not a locale"),
        ("payment_released__pt-BR__txt", "x", "write payment_released.pt_BR.txt.j2"),
        ("payment_relaesed__txt", "x", "no such type"),
        ("message__html", "{{ body }}", "body"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_at_the_start(
    tmp_path: Path, name: str, source: str, named: str
) -> None:
    """Every type is tried with a sample when the renderer is made; the error names file and fault."""
    folder = written(tmp_path, **{name: source})

    with pytest.raises(SettingError, match="BUFFER_TEMPLATES") as refused:
        Messages(templates=folder)

    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_template_that_fails_later_does_not_keep_a_message_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault that no sample shows is logged, and the owner hears of it in the built-in words."""
    folder = written(
        tmp_path,
        payment_released__txt="{% block title %}{{ 1 // (hold_id - 99) }}{% endblock %}"
        "{% block text %}x{% endblock %}",
    )
    messages = Messages(templates=folder)

    message = messages.render(sample(hold_id=99, notification_id=7), None)

    assert message.title == "Payment Released! 🎉"
    assert "notification 7" in caplog.text
    assert "PAYMENT_RELEASED" in caplog.text


def test_a_folder_of_templates_reads_nothing_outside_itself(tmp_path: Path) -> None:
    """A template cannot include a file that lies above its folder."""
    (tmp_path / "secret.txt.j2").write_text("hunter2")
    folder = written(
        tmp_path / "own",
        payment_released__txt="{% block title %}{% include '../secret.txt.j2' %}{% endblock %}"
        "{% block text %}x{% endblock %}",
    )

    with pytest.raises(SettingError, match="BUFFER_TEMPLATES") as refused:
        Messages(templates=folder)

    assert "hunter2" not in str(refused.value)
