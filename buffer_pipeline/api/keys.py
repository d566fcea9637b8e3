"""Keys of the API. The books have only their digests; a key is shown once, when it is made."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.errors import InvalidInput, NotFound, ReferenceConflict
from buffer_pipeline.inputs import require_text, require_time

API_ROLE: Final = "buffer_api"
"""The database role in which each transaction of the API begins. It reads keys, and records answers."""

NAME_LENGTH_MAX: Final = 100

_PREFIX: Final = "bp_"
_FORM: Final = re.compile(r"bp_[A-Za-z0-9_-]{43}")


class KeyRole(StrEnum):
    """What the holder of a key may do."""

    PLATFORM = "platform"
    OPERATOR = "operator"
    PAYOUTS = "payouts"
    READER = "reader"


DATABASE_ROLES: Final[Mapping[KeyRole, str]] = {
    KeyRole.PLATFORM: "buffer_platform",
    KeyRole.OPERATOR: "buffer_platform",
    KeyRole.PAYOUTS: "buffer_payouts",
    KeyRole.READER: "buffer_reader",
}
"""The role of docs/roles.md that a request runs in."""


@dataclass(frozen=True)
class Key:
    """A key that may be used, as found by its digest."""

    api_key_id: int
    name: str
    role: KeyRole

    @property
    def database_role(self) -> str:
        """The role that a request with this key runs in."""
        return DATABASE_ROLES[self.role]


@dataclass(frozen=True, kw_only=True)
class KeyRecord:
    """A key as `api-key list` shows it."""

    api_key_id: int
    name: str
    role: KeyRole
    made_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


def make_key(
    connection: AnyConnection, *, name: str, role: KeyRole, now: datetime, expires_at: datetime | None = None
) -> str:
    """Add a key of 256 random bits and return it. It cannot be read again.

    Raises:
        InvalidInput: the name is empty, too long or has control characters, or the key would have expired.
        ReferenceConflict: there is a key of that name, revoked or not.
    """
    require_time("now", now)
    require_text("name", name)
    if len(name) > NAME_LENGTH_MAX:
        raise InvalidInput(f"name: {len(name)} characters; at most {NAME_LENGTH_MAX}")
    if not name.isprintable() or name != name.strip():
        raise InvalidInput(f"name {name!r}: must be one line without spaces around it")
    if expires_at is not None and require_time("expires", expires_at) <= now:
        raise InvalidInput(f"expires {expires_at.isoformat()}: lies in the past")
    key = _PREFIX + secrets.token_urlsafe(32)
    added = fetch(
        connection,
        "api/add_key",
        key_name=name,
        role=role.value,
        digest=digest_of(key),
        now=now,
        expires_at=expires_at,
    )
    if not added:
        raise ReferenceConflict(f"key {name!r}: there is one of that name; names are not used again")
    return key


def list_keys(connection: AnyConnection) -> list[KeyRecord]:
    """Return all keys, the oldest first."""
    rows = fetch(connection, "api/list_keys")
    return [KeyRecord(**{**row, "role": KeyRole(row["role"])}) for row in rows]


def revoke_key(connection: AnyConnection, *, name: str, now: datetime) -> datetime:
    """Revoke a key and return since when it is revoked. Safe to run again.

    Raises:
        NotFound: no such key.
    """
    rows = fetch(
        connection, "api/revoke_key", key_name=require_text("name", name), now=require_time("now", now)
    )
    if not rows:
        raise NotFound(f"key {name!r}: does not exist; `api-key list` shows the keys")
    revoked_at = rows[0]["revoked_at"]
    assert isinstance(revoked_at, datetime)
    return revoked_at


def find_key(connection: AnyConnection, token: str) -> Key | None:
    """Return the key of a request if it may be used now."""
    if not _FORM.fullmatch(token):
        return None
    rows = fetch(connection, "api/find_key", digest=digest_of(token))
    return Key(rows[0]["api_key_id"], rows[0]["name"], KeyRole(rows[0]["role"])) if rows else None


def digest_of(token: str) -> bytes:
    """Return what is stored of a key. It has 256 random bits, so a plain digest cannot be reversed."""
    return sha256(token.encode()).digest()
