"""How an owner is reached and spoken to: a locale, a time zone, a mail address."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.inputs import require_text, require_time

EMAIL_LENGTH_MAX: Final = 254
"""RFC 5321, 4.5.3.1.3: a path of 256 with its brackets."""

_LOCAL_LENGTH_MAX: Final = 64

# RFC 5322's dot-atom, which is what people have; no quotes, no comments, no line breaks.
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*")


@dataclass(frozen=True, kw_only=True)
class Contact:
    """What is known of an owner; None is: not known, so the settings' own."""

    owner: str
    locale: str | None
    time_zone: str | None
    email: str | None


def set_contact(
    connection: AnyConnection,
    *,
    owner: str,
    locale: str | None = None,
    time_zone: str | None = None,
    email: str | None = None,
    now: datetime,
) -> Contact:
    """Write the whole contact: what is None is not known any more. Safe to run again.

    Raises:
        InvalidInput: not a locale, a time zone or an address that can be used.
    """
    whole = {"locale": locale, "time_zone": time_zone, "email": email}
    return change_contact(connection, owner=owner, changes=whole, now=now)


def change_contact(
    connection: AnyConnection, *, owner: str, changes: Mapping[str, str | None], now: datetime
) -> Contact:
    """Write those of locale, time_zone and email that `changes` has, None to forget one; keep the rest.

    One statement, so that two who change different parts at once both stand. Safe to run again.

    Raises:
        InvalidInput: as `set_contact`.
    """
    locale, time_zone, email = changes.get("locale"), changes.get("time_zone"), changes.get("email")
    require_time("now", now)
    require_text("owner", owner)
    from buffer_pipeline.voice import find_locale, find_zone  # noqa: PLC0415 - Babel, for who sets one

    if locale is not None:
        found = find_locale(locale)
        if found is None:
            raise InvalidInput(f"locale {locale!r}: not one that Babel knows, such as en_PH or fil_PH")
        locale = str(found)
    if time_zone is not None and find_zone(time_zone) is None:
        raise InvalidInput(f"time_zone {time_zone!r}: not in the IANA database, such as Asia/Manila")
    if email is not None:
        require_address(email)
    rows = fetch(
        connection,
        "contact/change_contact",
        owner=owner,
        locale=locale,
        changes_locale="locale" in changes,
        time_zone=time_zone,
        changes_time_zone="time_zone" in changes,
        email=email,
        changes_email="email" in changes,
        now=now,
    )
    return Contact(**rows[0])


def find_contacts(connection: AnyConnection, owners: Iterable[str]) -> dict[str, Contact]:
    """Return the contacts of those owners that have one."""
    rows = fetch(connection, "contact/find_contacts", owners=list(owners))
    return {row["owner"]: Contact(**row) for row in rows}


def require_address(email: str) -> str:
    """Return a mail address unchanged, if mail can be sent to it.

    Raises:
        InvalidInput: not a plain ASCII address, such as name@example.com.
    """
    require_text("email", email, length_max=EMAIL_LENGTH_MAX)
    if _EMAIL.fullmatch(email) is None or email.index("@") > _LOCAL_LENGTH_MAX:
        raise InvalidInput(
            f"email {email!r}: not an address such as name@example.com; write an international"
            " domain in its ASCII form, xn--…"
        )
    return email
