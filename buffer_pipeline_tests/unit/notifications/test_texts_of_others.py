"""Messages with arbitrary text in a title."""

import sys
import unicodedata
from pathlib import Path
from typing import Final

import pytest

from buffer_pipeline.notifications.contact import Contact
from buffer_pipeline.notifications.messages import Messages
from buffer_pipeline.notifications.sanitize import of_others, one_line, set_apart, shorten
from buffer_pipeline.notifications.templates import MESSAGE_TITLE_LENGTH_MAX, TEXT_LENGTH_MAX
from buffer_pipeline_tests.support.messages import BUILT_IN, sample, written

FAMILY: Final = "👨‍👩‍👧‍👦"
FLAG: Final = "🇵🇭"


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
    """Template syntax in a job's title is shown unchanged."""
    message = BUILT_IN.render(sample(title=title), None)

    assert f"'{title}'" in message.text


def test_markup_in_a_title_is_text_in_html() -> None:
    """A script in a title is shown in mail and not run."""
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
    """Line breaks and control characters become spaces, so no header can be injected."""
    overridden = sample("PAYMENT_PENDING", title=title)

    message = BUILT_IN.render(overridden, None)

    for text in (message.title, message.text):
        assert not {unicodedata.category(character) for character in text} & {"Cc", "Cs", "Zl", "Zp"}


def test_custom_template_cannot_break_a_title(tmp_path: Path) -> None:
    """A multi-line title is joined."""
    folder = written(
        tmp_path,
        payment_released__txt="{% block title %}Paid\r\nBcc: x\n{{ work }}{% endblock %}"
        "{% block text %}One.\n\nTwo.\x07{% endblock %}",
    )

    message = Messages(templates=folder).render(sample(), None)

    assert message.title == "Paid Bcc: x 'Fix kitchen faucet'"
    assert message.text == "One.\n\nTwo."


def test_long_title_is_cut_inside_its_sentence() -> None:
    """A title of 500 characters is shortened, and the sentence is complete."""
    message = BUILT_IN.render(sample(title="wash " * 100), None)

    assert len(message.title) <= MESSAGE_TITLE_LENGTH_MAX
    assert "…'. The funds have been added to your wallet!" in message.text
    assert message.payload["data"]["title"] == "wash " * 100


def test_long_text_of_a_template_is_cut(tmp_path: Path) -> None:
    """Title and text keep their limits."""
    folder = written(
        tmp_path,
        payment_released__txt="{% block title %}{{ 'x' * 5000 }}{% endblock %}"
        "{% block text %}{{ 'y ' * 5000 }}{% endblock %}",
    )

    message = Messages(templates=folder).render(sample(), None)

    assert (len(message.title), message.title[-1]) == (MESSAGE_TITLE_LENGTH_MAX, "…")
    assert len(message.text) <= TEXT_LENGTH_MAX


@pytest.mark.parametrize(
    "character",
    [FAMILY, FLAG, "👍🏽", "é", "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", "❤️"],
    ids=["family", "flag", "skin tone", "accent", "region", "variation"],
)
def test_grapheme_clusters_are_not_cut(character: str) -> None:
    """An emoji of several code points is kept whole or dropped."""
    for length_max in range(10, 60):
        kept = shorten(character * 40, length_max)

        assert len(kept) <= length_max
        assert kept.removesuffix("…") == character * (len(kept.removesuffix("…")) // len(character))


def test_joined_emoji_in_titles_are_unchanged() -> None:
    """Joined emoji come through titles unchanged."""
    message = BUILT_IN.render(sample(title=f"Crib {FAMILY}{FLAG}"), None)

    assert f"'Crib {FAMILY}{FLAG}'" in message.text


def test_right_to_left_text_is_isolated() -> None:
    """A Hebrew title in an English sentence does not reorder the amount or full stop next to it."""
    message = BUILT_IN.render(sample(title="תיקון ברז (2)"), None)

    assert "for '\u2068תיקון ברז (2)\u2069'. The funds" in message.text
    assert '<p dir="auto"' in message.html


def test_bidi_overrides_are_removed_from_titles() -> None:
    """They could make 05.1 of 1.50. Isolates are closed by us."""
    message = BUILT_IN.render(sample(title="\u202e05.1\u2066 x \u2067"), None)

    assert "for '05.1 x'. The funds" in message.text
    assert of_others("\u202d\u2069\u200fa") == "a"


def test_right_to_left_locale_isolates_every_value() -> None:
    """An Arabic reader's amounts and dates keep their order."""
    contact = Contact(owner="worker-17", locale="ar_EG", time_zone="Africa/Cairo", email=None)

    message = BUILT_IN.render(sample("PAYMENT_PENDING"), contact)

    assert "\u2068Fix kitchen faucet\u2069" in message.text
    assert "\u20689 مارس 2026" in message.text
    assert message.text.count("\u2068") == message.text.count("\u2069") == 4
    assert set_apart("", in_right_to_left=True) == ""


def test_every_unicode_character_is_classified() -> None:
    """Control characters, separators and surrogates are removed, and right-to-left ones isolated."""
    for character in map(chr, range(sys.maxunicode + 1)):
        if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}:
            assert one_line(f"a{character}b") == "a b", hex(ord(character))
        if unicodedata.bidirectional(character) in {"R", "AL", "AN"}:
            assert len(set_apart(character, in_right_to_left=False)) == 3, hex(ord(character))
