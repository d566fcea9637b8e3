"""Contacts: an owner's locale, time zone and mail address."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.inputs import require_text, require_time

EMAIL_LENGTH_MAX: Final = 254
"""RFC 5321, 4.5.3.1.3: a path has at most 256 characters, including its two brackets."""

_LOCAL_LENGTH_MAX: Final = 64

# RFC 5322's dot-atom, the form of real people's addresses: no quotes, no comments, no line breaks.
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*")


@dataclass(frozen=True, kw_only=True)
class Contact:
    """What is known of an owner. For an unknown locale or time zone (None) the settings' value is used.

    The owner of fees and taxes is notified of each only if `notify_of_shares` is True.
    """

    owner: str
    locale: str | None
    time_zone: str | None
    email: str | None
    notify_of_shares: bool = False


def set_contact(
    connection: AnyConnection,
    *,
    owner: str,
    locale: str | None = None,
    time_zone: str | None = None,
    email: str | None = None,
    notify_of_shares: bool = False,
    now: datetime,
) -> Contact:
    """Write the whole contact; a value that is None is removed. Safe to run again.

    Raises:
        InvalidInput: the locale, the time zone or the address cannot be used.
    """
    whole = {
        "locale": locale,
        "time_zone": time_zone,
        "email": email,
        "notify_of_shares": notify_of_shares,
    }
    return change_contact(connection, owner=owner, changes=whole, now=now)


def change_contact(
    connection: AnyConnection, *, owner: str, changes: Mapping[str, Any], now: datetime
) -> Contact:
    """Write the values in `changes` (locale, time_zone, email, notify_of_shares), and keep the others.

    None removes a locale, a time zone or an address.

    This is one statement, so two callers that change different values at the same time lose nothing. Safe
    to run again.

    Raises:
        InvalidInput: as `set_contact`.
    """
    locale, time_zone, email = changes.get("locale"), changes.get("time_zone"), changes.get("email")
    require_time("now", now)
    require_text("owner", owner)
    from buffer_pipeline.notifications.locales import find_locale, find_zone  # noqa: PLC0415 - loads Babel, needed here only

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
        notify_of_shares=changes.get("notify_of_shares"),
        now=now,
    )
    return Contact(**rows[0])


def find_contacts(connection: AnyConnection, owners: Iterable[str]) -> dict[str, Contact]:
    """Return the contacts of these owners, by owner. An owner without a contact is left out."""
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
