"""The templates of messages, by type and language.

They run in Jinja2's sandbox, because a folder of templates may come from somebody else than the program. A
title that somebody typed reaches a template as a value, never as template source.
"""

from typing import Any, Final

from jinja2 import (
    BaseLoader,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateRuntimeError,
)
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from buffer_pipeline.notifications.locales import Localization
from buffer_pipeline.notifications.sanitize import lines_of, one_line, shorten

MESSAGE_TITLE_LENGTH_MAX: Final = 150
TEXT_LENGTH_MAX: Final = 2_000

HTML_TEMPLATE: Final = "message.html.j2"

TEMPLATE_ERRORS: Final = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template of BUFFER_TEMPLATES may raise."""


class MessageTemplates:
    """The templates of a loader, by type and language. Each is read once."""

    def __init__(self, loader: BaseLoader) -> None:
        # One environment each: whether to escape depends on the format, and both may include the same file.
        self._for_text = _environment(loader, escapes=False)
        self._for_html = _environment(loader, escapes=True)
        self._chosen: dict[tuple[str, str], Template] = {}

    def render(self, type_: str, localization: Localization, facts: dict[str, Any]) -> tuple[str, str, str]:
        """Return title, text and HTML."""
        template = self._choose(type_, localization)
        context = template.new_context(facts)
        title = shorten(one_line(_block(template, "title", context)), MESSAGE_TITLE_LENGTH_MAX)
        text = shorten(lines_of(_block(template, "text", context)), TEXT_LENGTH_MAX)
        html = self._html().render(heading=title, paragraphs=[line for line in text.split("\n") if line])
        return title, text, html

    def _html(self) -> Template:
        key = (HTML_TEMPLATE, "")
        if key not in self._chosen:
            self._chosen[key] = self._for_html.get_template(HTML_TEMPLATE)
        return self._chosen[key]

    def _choose(self, type_: str, localization: Localization) -> Template:
        key = (type_, localization.name)
        if key not in self._chosen:
            stem = type_.lower()
            languages = [*(f".{name}" for name in localization.names), ""]
            self._chosen[key] = self._for_text.select_template(
                [f"{stem}{language}.txt.j2" for language in languages]
            )
        return self._chosen[key]


def _environment(loader: BaseLoader, *, escapes: bool) -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        loader=loader,
        autoescape=escapes,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def _block(template: Template, name: str, context: Context) -> str:
    if name not in template.blocks:
        raise TemplateRuntimeError(f"{template.name} has no block {name}")
    text = "".join(template.blocks[name](context))
    if not text.strip():
        raise TemplateRuntimeError(f"the block {name} of {template.name} is empty")
    return text
