"""Messages: a notification as text for people and as a JSON document for programs.

The text comes from templates. `payment_released.txt.j2` has the blocks `title` and `text`. A folder that
BUFFER_TEMPLATES names overrides files by their name and adds languages: `payment_released.fil.txt.j2` is
used for the locale fil_PH. A title that somebody typed reaches a template as a value, never as template
source.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from jinja2 import ChoiceLoader, FileSystemLoader, PackageLoader

from buffer_pipeline.errors import SettingError
from buffer_pipeline.explain.words import frozen_because
from buffer_pipeline.inputs import PAYEE_TEXT_LENGTH_MAX
from buffer_pipeline.money import format_amount
from buffer_pipeline.notifications.contact import Contact
from buffer_pipeline.notifications.locales import Localization, find_locale, find_zone
from buffer_pipeline.notifications.notification import Notification, NotifiedShare
from buffer_pipeline.notifications.sanitize import of_others, one_line, set_apart, shorten
from buffer_pipeline.notifications.templates import TEMPLATE_ERRORS, MessageTemplates

TYPES: Final = (
    "PAYMENT_PENDING",
    "PAYMENT_RELEASED",
    "PAYMENT_FROZEN",
    "PAYMENT_RESUMED",
    "PAYMENT_RESCHEDULED",
    "PAYMENT_REFUNDED",
    "BACKJOB_RECEIVED",
    "BACKJOB_REJECTED",
    "BACKJOB_APPROVED",
    "EARNING_CLAWED_BACK",
    "DEBT_RECOVERED",
    "DEBT_FORGIVEN",
    "PAYOUT_SENT",
    "PAYOUT_PAID",
    "PAYOUT_RETURNED",
)
"""Every type of notification, as in the table's CHECK."""

SENT_TO_BOTH: Final = frozenset({"PAYMENT_REFUNDED", "BACKJOB_REJECTED", "BACKJOB_APPROVED"})
"""The types that both payee and payer receive, each with a text of its own."""

_AFTER_A_CLAW_BACK: Final = frozenset({"EARNING_CLAWED_BACK", "DEBT_RECOVERED", "DEBT_FORGIVEN"})
_WITHOUT_BACKJOB: Final = (
    frozenset({"PAYMENT_PENDING", "PAYMENT_RELEASED", "PAYMENT_RESCHEDULED"}) | _AFTER_A_CLAW_BACK
)
_WITH_RELEASE_DATE: Final = frozenset({"PAYMENT_PENDING", "PAYMENT_RESUMED", "PAYMENT_RESCHEDULED"})

SHOWN_LENGTH_MAX: Final = 80
"""A longer job title is cut inside a message, so that the rest of the message is not."""

REASON_SHOWN_LENGTH_MAX: Final = 300
"""A longer reason of a claw-back, or of a bank, is cut inside a message."""

PAYLOAD_SCHEMA: Final = 1
"""The version of `schemas/notification.v1.json`, which describes `Message.payload`."""

logger: Final = logging.getLogger("buffer_pipeline.notifications.messages")


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a channel sends.

    `title` is one line. `text` is plain text of one or more lines. Both have a maximum length and no control
    characters. `html` is a whole document. `payload` follows `schemas/notification.v1.json`. `email` is the
    owner's mail address.
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
    """Renders notifications. Reads each template once, so a change is seen after the next start.

    Raises:
        SettingError: BUFFER_LOCALE, BUFFER_TIME_ZONE, BUFFER_TEMPLATES or a template of that folder
            cannot be used; the message names the setting and the file.
    """

    def __init__(
        self, *, templates: Path | None = None, locale: str = "en_US", time_zone: str = "UTC"
    ) -> None:
        default_locale, default_zone = find_locale(locale), find_zone(time_zone)
        if default_locale is None:
            raise SettingError(f"BUFFER_LOCALE: not a locale such as en_US, got {locale!r}")
        if default_zone is None:
            raise SettingError(f"BUFFER_TIME_ZONE: not a time zone such as Asia/Manila, got {time_zone!r}")
        self._default = Localization(default_locale, default_zone)
        self._localizations: dict[tuple[str | None, str | None], Localization] = {}
        built_in = PackageLoader("buffer_pipeline", "templates/notifications")
        self._built_in = MessageTemplates(built_in)
        self._templates = self._built_in
        if templates is not None:
            if not templates.is_dir():
                raise SettingError(f"BUFFER_TEMPLATES: not a folder, got {str(templates)!r}")
            folder = FileSystemLoader(templates)
            self._templates = MessageTemplates(ChoiceLoader([folder, built_in]))
            self._require_usable(folder.list_templates())

    def render(self, notification: Notification, contact: Contact | None) -> Message:
        """Return the message, in the contact's locale and time zone if it has them.

        If a template of BUFFER_TEMPLATES fails on this notification, the error is logged and the built-in
        template is used, so that the owner gets the message anyway.
        """
        localization = self._localization_of(contact)
        facts = _facts(notification, localization)
        try:
            title, text, html = self._templates.render(notification.type, localization, facts)
        except TEMPLATE_ERRORS as error:
            if self._templates is self._built_in:
                raise
            logger.error(  # noqa: TRY400 - a trace for each of thousands of messages adds nothing
                "notification %d: BUFFER_TEMPLATES has a template for %s that fails, so the built-in one"
                " is used: %s",
                notification.notification_id,
                notification.type,
                one_line(str(error)),
            )
            title, text, html = self._built_in.render(notification.type, localization, facts)
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

    def _localization_of(self, contact: Contact | None) -> Localization:
        if contact is None:
            return self._default
        # Both were checked when the contact was set, but perhaps by another version of Babel.
        if (known := self._localizations.get((contact.locale, contact.time_zone))) is not None:
            return known
        localization = Localization(
            find_locale(contact.locale or "") or self._default.locale,
            find_zone(contact.time_zone or "") or self._default.zone,
        )
        self._localizations[contact.locale, contact.time_zone] = localization
        return localization

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
                # A file with another name would never be used.
                if language not in Localization(locale, self._default.zone).names:
                    raise SettingError(f"BUFFER_TEMPLATES: {name}: write {stem}.{locale}.txt.j2")
                languages.append(locale)
        for localization in [Localization(locale, self._default.zone) for locale in languages]:
            for sample in samples():
                try:
                    self._templates.render(sample.type, localization, _facts(sample, localization))
                except TEMPLATE_ERRORS as error:
                    line = getattr(error, "lineno", None)
                    place = getattr(error, "name", None) or f"{sample.type.lower()}.txt.j2"
                    raise SettingError(
                        f"BUFFER_TEMPLATES: {place}{f', line {line}' if line else ''}: {one_line(str(error))}"
                    ) from None


def _facts(notification: Notification, localization: Localization) -> dict[str, Any]:
    """Return the values that a template can use; docs/notifications.md explains each."""

    def apart(text: str) -> str:
        return set_apart(text, in_right_to_left=localization.right_to_left)

    def shown(amount_minor: int | None) -> str | None:
        if amount_minor is None or notification.currency is None or notification.places is None:
            return None
        return apart(localization.amount(amount_minor, notification.currency, notification.places))

    def moment(moment: datetime | None) -> str | None:
        return None if moment is None else apart(localization.moment(moment))

    def until(moment: datetime | None) -> str | None:
        ahead = timedelta() if moment is None else moment - notification.created_at
        return apart(localization.duration(ahead)) if ahead > timedelta() else None

    title = apart(shorten(of_others(notification.title or ""), SHOWN_LENGTH_MAX))
    job = apart(shorten(of_others(notification.job), SHOWN_LENGTH_MAX))
    return {
        "type": notification.type,
        "owner": of_others(notification.owner),
        "to_payer": notification.to_payer,
        "work": f"'{title}'" if title else f"job {job}" if notification.job else "",
        "title": title,
        "job": job,
        "amount": shown(notification.amount_minor),
        "currency": notification.currency,
        "kind": notification.kind,
        "left": shown(notification.left_minor),
        "reason": (reason := _reason(notification))
        and apart(shorten(of_others(reason), REASON_SHOWN_LENGTH_MAX)),
        "frozen_because": frozen_because(
            backjob_id=notification.backjob_id,
            payee_text=notification.payee_text
            and apart(shorten(of_others(notification.payee_text), PAYEE_TEXT_LENGTH_MAX)),
        ),
        "earning_amount": shown(notification.earning_minor),
        "shares": [
            {
                "kind": share.kind,
                "to_reader": share.owner == notification.owner,
                "amount": shown(share.amount_minor),
                "release_date": moment(share.release_date),
                "release_in": until(share.release_date),
                "left": shown(share.left_minor),
                "due": moment(share.due_at),
            }
            for share in notification.shares
        ],
        "release_date": moment(notification.release_date),
        "release_in": until(notification.release_date),
        "created_at": apart(localization.moment(notification.created_at)),
        "notification_id": notification.notification_id,
        "hold_id": notification.hold_id,
        "backjob_id": notification.backjob_id,
        "payout_id": notification.payout_id,
        "account": notification.payout_account,
        "locale": localization.name,
    }


def _payload(notification: Notification, *, title: str, text: str) -> dict[str, Any]:
    def shown(amount_minor: int | None) -> str | None:
        if amount_minor is None or notification.places is None:
            return None
        return format_amount(amount_minor, notification.places)

    return {
        "type": notification.type.lower().replace("_", ".", 1),
        "timestamp": _iso(notification.created_at),
        "data": {
            "schema": PAYLOAD_SCHEMA,
            "notification_id": notification.notification_id,
            "owner": notification.owner,
            "hold_id": notification.hold_id,
            "backjob_id": notification.backjob_id,
            "job": notification.job or None,
            "title": notification.title or None,
            "currency": notification.currency,
            "amount": shown(notification.amount_minor),
            "release_date": None if notification.release_date is None else _iso(notification.release_date),
            "left_amount": shown(notification.left_minor),
            "reason": _reason(notification),
            "payee_text": notification.payee_text,
            "metadata": dict(notification.metadata),
            "kind": notification.kind,
            "earning_id": notification.earning_id,
            "earning_amount": shown(notification.earning_minor),
            "shares": [
                {
                    "hold_id": share.hold_id,
                    "kind": share.kind,
                    "owner": share.owner,
                    "amount": shown(share.amount_minor),
                    "release_date": _iso(share.release_date),
                }
                for share in notification.shares
            ],
            "payout_id": notification.payout_id,
            "account": notification.payout_account,
            "message": {"title": title, "text": text},
        },
    }


def _reason(notification: Notification) -> str | None:
    """Return why money was taken back, or why the bank returned the payout that this says is returned.

    An earlier notification of the same payout, which is sent late, does not have the bank's reason.
    """
    return notification.payout_reason if notification.type == "PAYOUT_RETURNED" else notification.reason


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def samples(type_: str | None = None) -> Iterator[Notification]:
    """Yield example notifications of one type or of all, for each type one per kind of reader.

    For a payment, the first is of an earning without shares. After the one to the payer come those of an
    earning that has shares, one for each kind. The last of PAYMENT_RELEASED is of a part, and the last of a
    claw-back or a recovery is of one that leaves a debt.
    """
    noon = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
    for kind in TYPES if type_ is None else [type_]:
        of_payout = kind.startswith("PAYOUT_")
        of_payment = not of_payout and not kind.startswith("BACKJOB_")
        sample = Notification(
            notification_id=1,
            type=kind,
            owner="worker-17",
            to_payer=False,
            hold_id=41 if of_payment else None,
            backjob_id=None if kind in _WITHOUT_BACKJOB or of_payout else 12,
            job="" if of_payout else "job-8",
            title=None if of_payout else "Fix kitchen faucet",
            currency="PHP" if of_payment or of_payout else None,
            amount_minor=125050 if of_payment or of_payout else None,
            places=2 if of_payment or of_payout else None,
            release_date=noon + timedelta(days=7) if kind in _WITH_RELEASE_DATE else None,
            created_at=noon,
            metadata={"order": "A-17"} if of_payment else {},
            kind="PAYEE" if of_payment else None,
            reason="chargeback of 2 March" if kind in _AFTER_A_CLAW_BACK else None,
            payout_id=6 if of_payout else None,
            payout_account="DE****3000" if of_payout else None,
            payout_reason="AC04 account closed" if kind == "PAYOUT_RETURNED" else None,
        )
        yield sample
        if kind in SENT_TO_BOTH:
            yield replace(sample, notification_id=2, owner="client-3", to_payer=True)
        if of_payment:
            yield from _samples_of_shares(sample, noon)
        if kind == "PAYMENT_RELEASED":
            yield replace(
                sample,
                notification_id=7,
                amount_minor=25_050,
                left_minor=100_000,
                release_date=noon + timedelta(days=7),
            )
        if kind in _AFTER_A_CLAW_BACK - {"DEBT_FORGIVEN"}:
            yield replace(sample, notification_id=8, left_minor=45_000)


def _samples_of_shares(sample: Notification, noon: datetime) -> Iterator[Notification]:
    late = noon + timedelta(days=90)
    week = noon + timedelta(days=7)
    shares = (
        NotifiedShare(hold_id=41, kind="PAYEE", owner="worker-17", amount_minor=95_038, release_date=week),
        NotifiedShare(hold_id=42, kind="FEE", owner="platform", amount_minor=15_006, release_date=week),
        NotifiedShare(hold_id=43, kind="TAX", owner="tax-office", amount_minor=2_501, release_date=week),
        NotifiedShare(
            hold_id=44,
            kind="RESERVE",
            owner="worker-17",
            amount_minor=12_505,
            release_date=late,
            left_minor=12_505,
            due_at=late,
        ),
    )
    for number, share in enumerate(shares, 3):
        to_payee = share.owner == sample.owner
        yield replace(
            sample,
            notification_id=number,
            owner=share.owner,
            hold_id=share.hold_id,
            amount_minor=share.amount_minor,
            release_date=sample.release_date and share.release_date,
            kind=share.kind,
            earning_id=41,
            earning_minor=sample.amount_minor if to_payee else None,
            shares=shares if to_payee else (),
        )
