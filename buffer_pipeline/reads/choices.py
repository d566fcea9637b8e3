"""Filters that are one of a few words."""

from enum import StrEnum
from typing import TypeVar

from buffer_pipeline.errors import InvalidInput

Choice = TypeVar("Choice", bound=StrEnum)


def choice(name: str, value: str, words: type[Choice]) -> Choice:
    """Return the word that a filter names.

    Raises:
        InvalidInput: it is none of the words.
    """
    try:
        return words(value)
    except ValueError:
        raise InvalidInput(f"{name} {value!r}: must be one of {', '.join(words)}") from None
