"""What an owner is told: a notification in words, for people, and as a document, for programs.

Words come from templates. `payment_released.txt.j2` has the blocks `title` and `text`; a folder of one's
own (BUFFER_TEMPLATES) overrides each file by its name, and adds languages: `payment_released.fil.txt.j2`
is taken for the locale fil_PH. What others wrote reaches a template as a value, never as a template.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from jinja2 import ChoiceLoader, FileSystemLoader, PackageLoader

from buffer_pipeline.contact import Contact
from buffer_pipeline.errors import SettingError
from buffer_pipeline.money import format_amount
from buffer_pipeline.outbox import Notification
from buffer_pipeline.texts import of_others, one_line, set_apart, shorten
from buffer_pipeline.voice import Voice, find_locale, find_zone
from buffer_pipeline.words import WRONG_IN_A_TEMPLATE, Words

TYPES: Final = (
    "PAYMENT_PENDING",
    "PAYMENT_RELEASED",
    "PAYMENT_FROZEN",
    "PAYMENT_RESUMED",
    "PAYMENT_REFUNDED",
    "BACKJOB_RECEIVED",
    "BACKJOB_REJECTED",
    "BACKJOB_APPROVED",
)
"""Every type of a notification, as the table's CHECK has them."""

TOLD_TO_BOTH: Final = frozenset({"PAYMENT_REFUNDED", "BACKJOB_REJECTED", "BACKJOB_APPROVED"})
"""The types that the payer is told as well as the payee, each in other words."""

NAME_LENGTH_MAX: Final = 80
"""Of a job's title inside a message: what the message says of it must not be cut off."""

PAYLOAD_SCHEMA: Final = 1
"""The version of `schemas/notification.v1.json`, which describes `Message.payload`."""

logger: Final = logging.getLogger("buffer_pipeline.messages")


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a channel sends.

    `title` is one line and `text` plain text that may have several; both are bounded and free of control
    characters. `html` is a whole document. `payload` follows `schemas/notification.v1.json`. `email` is
    where mail goes.
    """

    notification_id: int
    type: str
    owner: str
    title: str
    text: str
    html: str
    payload: dict[str, Any]
    email: str | None
    created_at: datetime


class Messages:
    """Renders notifications. Reads each template once; a changed one counts from the next start.

    Raises:
        SettingError: BUFFER_LOCALE, BUFFER_TIME_ZONE or BUFFER_TEMPLATES is not usable, or a template
            of that folder is not; the message names the file.
    """

    def __init__(
        self, *, templates: Path | None = None, locale: str = "en_US", time_zone: str = "UTC"
    ) -> None:
        default_locale, default_zone = find_locale(locale), find_zone(time_zone)
        if default_locale is None:
            raise SettingError(f"BUFFER_LOCALE: not a locale such as en_US, got {locale!r}")
        if default_zone is None:
            raise SettingError(f"BUFFER_TIME_ZONE: not a time zone such as Asia/Manila, got {time_zone!r}")
        self._default = Voice(default_locale, default_zone)
        self._voices: dict[tuple[str | None, str | None], Voice] = {}
        built_in = PackageLoader("buffer_pipeline", "templates/notifications")
        self._built_in = Words(built_in)
        self._templates = self._built_in
        if templates is not None:
            if not templates.is_dir():
                raise SettingError(f"BUFFER_TEMPLATES: not a folder, got {str(templates)!r}")
            folder = FileSystemLoader(templates)
            self._templates = Words(ChoiceLoader([folder, built_in]))
            self._require_usable(folder.list_templates())

    def render(self, notification: Notification, contact: Contact | None) -> Message:
        """Return what the owner is told, in the contact's locale and time zone where it has them.

        A template of BUFFER_TEMPLATES that fails on this very notification is logged, and the built-in
        one takes its place: owners hear of their money whatever became of a template.
        """
        voice = self._voice(contact)
        facts = _facts(notification, voice)
        try:
            title, text, html = self._templates.render(notification.type, voice, facts)
        except WRONG_IN_A_TEMPLATE as error:
            if self._templates is self._built_in:
                raise
            logger.error(  # noqa: TRY400 - a trace for each of thousands would tell no more
                "notification %d: BUFFER_TEMPLATES has a template for %s that fails, so the built-in one"
                " is used: %s",
                notification.notification_id,
                notification.type,
                one_line(str(error)),
            )
            title, text, html = self._built_in.render(notification.type, voice, facts)
        return Message(
            notification_id=notification.notification_id,
            type=notification.type,
            owner=notification.owner,
            title=title,
            text=text,
            html=html,
            payload=_payload(notification, title=title, text=text),
            email=None if contact is None else contact.email,
            created_at=notification.created_at,
        )

    def _voice(self, contact: Contact | None) -> Voice:
        if contact is None:
            return self._default
        # Both were checked when the contact was set, perhaps by another version of Babel.
        if (known := self._voices.get((contact.locale, contact.time_zone))) is not None:
            return known
        voice = Voice(
            find_locale(contact.locale or "") or self._default.locale,
            find_zone(contact.time_zone or "") or self._default.zone,
        )
        self._voices[contact.locale, contact.time_zone] = voice
        return voice

    def _require_usable(self, names: list[str]) -> None:
        stems = [type_.lower() for type_ in TYPES]
        languages = [self._default.locale]
        for name in names:
            stem, _, language = name.removesuffix(".txt.j2").partition(".")
            if not name.endswith(".txt.j2"):
                continue
            if stem not in stems:
                raise SettingError(f"BUFFER_TEMPLATES: {name}: no such type; there are {', '.join(stems)}")
            if language:
                locale = find_locale(language)
                if locale is None:
                    raise SettingError(f"BUFFER_TEMPLATES: {name}: not a locale such as fil or pt_BR")
                # Under another name it would never be looked for.
                if language not in Voice(locale, self._default.zone).names:
                    raise SettingError(f"BUFFER_TEMPLATES: {name}: write {stem}.{locale}.txt.j2")
                languages.append(locale)
        for voice in [Voice(locale, self._default.zone) for locale in languages]:
            for sample in samples():
                try:
                    self._templates.render(sample.type, voice, _facts(sample, voice))
                except WRONG_IN_A_TEMPLATE as error:
                    line = getattr(error, "lineno", None)
                    place = getattr(error, "name", None) or f"{sample.type.lower()}.txt.j2"
                    raise SettingError(
                        f"BUFFER_TEMPLATES: {place}{f', line {line}' if line else ''}: {one_line(str(error))}"
                    ) from None


def _facts(notification: Notification, voice: Voice) -> dict[str, Any]:
    """Return what a template may say; docs/notifications.md explains each."""

    def apart(text: str) -> str:
        return set_apart(text, in_right_to_left=voice.right_to_left)

    title = apart(shorten(of_others(notification.title or ""), NAME_LENGTH_MAX))
    job = apart(shorten(of_others(notification.job), NAME_LENGTH_MAX))
    release_date = notification.release_date
    ahead = None if release_date is None else release_date - notification.created_at
    return {
        "type": notification.type,
        "owner": of_others(notification.owner),
        "to_payer": notification.to_payer,
        "work": f"'{title}'" if title else f"job {job}",
        "title": title,
        "job": job,
        "amount": None
        if notification.amount_minor is None or notification.currency is None or notification.places is None
        else apart(voice.amount(notification.amount_minor, notification.currency, notification.places)),
        "currency": notification.currency,
        "release_date": None if release_date is None else apart(voice.moment(release_date)),
        "release_in": None if ahead is None or ahead <= timedelta() else apart(voice.duration(ahead)),
        "created_at": apart(voice.moment(notification.created_at)),
        "notification_id": notification.notification_id,
        "hold_id": notification.hold_id,
        "backjob_id": notification.backjob_id,
        "locale": voice.name,
    }


def _payload(notification: Notification, *, title: str, text: str) -> dict[str, Any]:
    amount = None
    if notification.amount_minor is not None and notification.places is not None:
        amount = format_amount(notification.amount_minor, notification.places)
    return {
        "type": notification.type.lower().replace("_", ".", 1),
        "timestamp": _iso(notification.created_at),
        "data": {
            "schema": PAYLOAD_SCHEMA,
            "notification_id": notification.notification_id,
            "owner": notification.owner,
            "hold_id": notification.hold_id,
            "backjob_id": notification.backjob_id,
            "job": notification.job,
            "title": notification.title or None,
            "currency": notification.currency,
            "amount": amount,
            "release_date": None if notification.release_date is None else _iso(notification.release_date),
            "message": {"title": title, "text": text},
        },
    }


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def samples(type_: str | None = None) -> Iterator[Notification]:
    """Yield made-up notifications of a type, or of every type: one for each reader that it has."""
    noon = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
    for kind in TYPES if type_ is None else [type_]:
        of_payment = kind.startswith("PAYMENT_")
        sample = Notification(
            notification_id=1,
            type=kind,
            owner="worker-17",
            to_payer=False,
            hold_id=41 if of_payment else None,
            backjob_id=None if kind in {"PAYMENT_PENDING", "PAYMENT_RELEASED"} else 12,
            job="job-8",
            title="Fix kitchen faucet",
            currency="PHP" if of_payment else None,
            amount_minor=125050 if of_payment else None,
            places=2 if of_payment else None,
            release_date=noon + timedelta(days=7) if kind in {"PAYMENT_PENDING", "PAYMENT_RESUMED"} else None,
            created_at=noon,
        )
        yield sample
        if kind in TOLD_TO_BOTH:
            yield replace(sample, notification_id=2, owner="client-3", to_payer=True)
