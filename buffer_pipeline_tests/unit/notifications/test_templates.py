"""Messages from custom templates."""

from pathlib import Path

import pytest

from buffer_pipeline.errors import SettingError
from buffer_pipeline.notifications.contact import Contact
from buffer_pipeline.notifications.messages import Messages
from buffer_pipeline_tests.support.messages import sample, written


def test_a_folder_overrides_a_type_and_adds_languages(tmp_path: Path) -> None:
    """The order is the owner's locale, its language, the plain file, the built-in template."""
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
    """A country's usual script need not be in the name."""
    words = "{% block title %}own{% endblock %}{% block text %}x{% endblock %}"
    folder = written(tmp_path, **{f"payment_released__{file}__txt": words})
    contact = Contact(owner="worker-17", locale=locale, time_zone=None, email=None)

    message = Messages(templates=folder).render(sample(), contact)

    assert (message.title == "own") is taken


def test_a_part_may_be_included(tmp_path: Path) -> None:
    """A file that is no type and ends in .j2 can be included by others."""
    folder = written(
        tmp_path,
        payment_released__txt="{% block title %}x{% endblock %}"
        "{% block text %}{{ amount }}. {% include 'footer.j2' %}{% endblock %}",
        footer="Your market, {{ job }}",
    )

    message = Messages(templates=folder).render(sample(), None)

    assert message.text == "₱1,250.50. Your market, job-8"


def test_markup_is_escaped_in_what_the_html_includes(tmp_path: Path) -> None:
    """The including template decides, whatever the file's name: raw in text, escaped in HTML."""
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
    """The frame of mails is a template too, and escapes its values."""
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
def test_invalid_template_is_refused_at_the_start(tmp_path: Path, name: str, source: str, named: str) -> None:
    """Every type is rendered with a sample. The error names file and fault."""
    folder = written(tmp_path, **{name: source})

    with pytest.raises(SettingError, match="BUFFER_TEMPLATES") as refused:
        Messages(templates=folder)

    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_template_that_fails_later_falls_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The fault is logged, and the owner gets the built-in text."""
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
    """A template cannot include a file above its folder."""
    (tmp_path / "secret.txt.j2").write_text("hunter2")
    folder = written(
        tmp_path / "own",
        payment_released__txt="{% block title %}{% include '../secret.txt.j2' %}{% endblock %}"
        "{% block text %}x{% endblock %}",
    )

    with pytest.raises(SettingError, match="BUFFER_TEMPLATES") as refused:
        Messages(templates=folder)

    assert "hunter2" not in str(refused.value)
