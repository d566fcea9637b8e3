"""Metadata of a hold: a small JSON object of the platform's own, returned and searched but never interpreted.

In the books it is a jsonb, and NULL if a hold has none. Statements take it and return it as JSON text, so
that no setting of a caller's connection changes how it is read.
"""

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final, TypeAlias

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.inputs import ID_MAX, require_text

MetadataValue: TypeAlias = str | int | float | bool | None
Metadata: TypeAlias = Mapping[str, MetadataValue]

KEYS_MAX: Final = 20
KEY_LENGTH_MAX: Final = 40
VALUE_LENGTH_MAX: Final = 500
JSON_LENGTH_MAX: Final = 200_000
"""Characters of JSON text. The largest metadata has fewer, even if every character is escaped."""

_INTEGER_DIGITS_MAX: Final = 21
"""An integer of more characters has more than 64 bits. Python refuses to read one of thousands of digits."""
_WHOLE_FLOAT: Final = 1e16
"""From here on, Python writes a float with an exponent. PostgreSQL would return its digits, as an integer."""


def parse_metadata(text: str) -> dict[str, MetadataValue]:
    """Return the object of a JSON text. `metadata_text` checks its keys and values.

    Raises:
        InvalidInput: not JSON, not an object, or a key occurs twice.
    """
    if len(text) > JSON_LENGTH_MAX:
        raise InvalidInput(f"metadata: {len(text)} characters of JSON; at most {JSON_LENGTH_MAX}")
    try:
        found = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=lambda digits: int(digits[:_INTEGER_DIGITS_MAX]),
        )
    except json.JSONDecodeError as error:
        raise InvalidInput(f"metadata: not JSON: {error}") from None
    except RecursionError:
        raise InvalidInput("metadata: not a flat JSON object; it has too many levels") from None
    _require_object(found)
    return found  # type: ignore[no-any-return]


def metadata_text(metadata: Metadata | None) -> str | None:
    """Check metadata and return it as JSON text; None if there is none, or no key in it.

    Raises:
        InvalidInput: a key or a value that metadata cannot have; the message names the key and the limit.
    """
    if metadata is None:
        return None
    _require_object(metadata)
    if len(metadata) > KEYS_MAX:
        raise InvalidInput(f"metadata: {len(metadata)} keys; at most {KEYS_MAX}")
    pairs = [f"{_dumps(_require_key(key))}:{_value_text(key, value)}" for key, value in metadata.items()]
    return f"{{{','.join(pairs)}}}" if pairs else None


def read_metadata(text: object) -> dict[str, MetadataValue]:
    """Return metadata that a statement returned as JSON text; {} if it returned NULL."""
    return json.loads(text) if isinstance(text, str) else {}


def differing_key(one: Metadata, other: Metadata) -> str | None:
    """Return the first key whose values differ, or None. 1 is 1.0, as in JSON, but not True."""
    for key in sorted({**one, **other}):
        if (
            (key in one) != (key in other)
            or one[key] != other[key]
            or isinstance(one[key], bool) != isinstance(other[key], bool)
        ):
            return key
    return None


def shown_metadata(metadata: Metadata) -> str:
    """Return metadata as JSON on one line. Characters that a terminal may act on are escaped."""
    text = json.dumps(metadata, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def search_texts(key: str, value: str) -> list[str]:
    """Return JSON objects; metadata that contains one of them has this value under this key.

    The value is the text itself, or the number, true, false or null that is written so.

    Raises:
        InvalidInput: as `metadata_text`.
    """
    name = _dumps(_require_key(key))
    values = [_value_text(key, value)]
    try:
        scalar = json.loads(value)
        if not isinstance(scalar, str):
            values.append(_value_text(key, scalar))
    except (ValueError, RecursionError, InvalidInput):
        pass  # It is the text of nothing else that metadata can have.
    return [f"{{{name}:{each}}}" for each in values]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return one object of a JSON text, which may have a key twice. Python would keep the last one."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidInput(f"metadata key {_named(key)}: occurs twice; at most once")
        found[key] = value
    return found


def _require_object(found: object) -> None:
    if not isinstance(found, Mapping):
        raise InvalidInput(f"metadata: needs an object such as {{'order': 'A-17'}}, got {_kind(found)}")


def _require_key(key: object) -> str:
    if not isinstance(key, str):
        raise InvalidInput(f"metadata: a key needs text, got {_kind(key)}")
    if len(key) > KEY_LENGTH_MAX:
        raise InvalidInput(
            f"metadata key {_named(key)}: {len(key)} characters long; at most {KEY_LENGTH_MAX}"
        )
    return require_text("metadata key", key, length_max=KEY_LENGTH_MAX)


def _value_text(key: str, value: object) -> str:
    """Return a value as JSON. Refuse one that PostgreSQL could not store and return unchanged."""
    where = f"metadata key {_named(key)}"
    if isinstance(value, str):
        if len(value) > VALUE_LENGTH_MAX:
            raise InvalidInput(f"{where}: {len(value)} characters long; at most {VALUE_LENGTH_MAX}")
        if "\0" in value or not _is_unicode(value):
            raise InvalidInput(f"{where}: contains a NUL or half of a surrogate pair")
        return _dumps(value)
    if value is None or isinstance(value, bool):
        return _dumps(value)
    if isinstance(value, int):
        if not -ID_MAX - 1 <= value <= ID_MAX:
            raise InvalidInput(f"{where}: an integer of more than 64 bits; at most {ID_MAX}")
        return _dumps(value)
    if isinstance(value, float):
        if not isfinite(value):
            raise InvalidInput(f"{where}: {float(value)} is not a finite number")
        return f"{value:.1f}" if abs(value) >= _WHOLE_FLOAT else _dumps(value)
    raise InvalidInput(f"{where}: needs text, a number, a boolean or null, got {_kind(value)}")


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _named(key: str) -> str:
    return repr(key) if len(key) <= KEY_LENGTH_MAX else f"{key[:KEY_LENGTH_MAX]!r}…"


def _kind(value: object) -> str:
    return {"dict": "an object", "list": "an array"}.get(type(value).__name__, type(value).__name__)
