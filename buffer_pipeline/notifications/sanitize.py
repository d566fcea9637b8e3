"""Clean and shorten text that people typed, so that it can be part of a message; write counts."""

import re
import unicodedata
from typing import Final

ELLIPSIS: Final = "…"

_FIRST_STRONG_ISOLATE: Final = "\u2068"
_POP_DIRECTIONAL_ISOLATE: Final = "\u2069"

# The blocks that Unicode reserves for right-to-left scripts (UAX 9, table 4).
_RIGHT_TO_LEFT: Final = re.compile(
    "[\u0590-\u08ff\u200f\ufb1d-\ufdff\ufe70-\ufeff\U00010800-\U00010fff\U0001e800-\U0001efff]"
)

# Control characters, halves of surrogate pairs, line and paragraph separators.
_BREAKING: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

# They change the direction of the text that follows: a title with them could make the rest of a sentence
# read differently.
_WITHOUT_DIRECTION_MARKS: Final = str.maketrans(
    dict.fromkeys("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
)

_ZERO_WIDTH_JOINER: Final = "\u200d"

_PARTS_SEARCHED_MAX: Final = 64


def of_others(text: str) -> str:
    """Return text from somebody else on one line, without characters that change the text's direction."""
    return one_line(text.translate(_WITHOUT_DIRECTION_MARKS))


def one_line(text: str) -> str:
    """Return `text` on one line, with one space for each run of white space and control characters.

    Joiners stay, because emoji and several scripts need them.
    """
    return " ".join(_BREAKING.sub(" ", text).split())


def lines_of(text: str) -> str:
    """Return `text` with `one_line` applied to each line, without empty lines at its start and end."""
    return "\n".join(one_line(line) for line in text.strip().splitlines())


def shorten(text: str, length_max: int) -> str:
    """Return `text`, cut to at most `length_max` code points, including an ellipsis.

    It is cut between two characters as people see them, never inside a flag, a combined emoji or an
    accented letter.
    """
    if len(text) <= length_max:
        return text
    end = length_max - len(ELLIPSIS)
    for candidate in range(end, max(end - _PARTS_SEARCHED_MAX, 0), -1):
        if not _belong_together(text[:candidate], text[candidate]):
            end = candidate
            break
    return text[:end].rstrip() + ELLIPSIS


def counted(number: int, what: str) -> str:
    """Return a count with its noun, such as 1 batch or 2,000 batches."""
    plural = "es" if what.endswith("ch") else "s"
    return f"{number:,} {what}" + ("" if number == 1 else plural)


def set_apart(text: str, *, in_right_to_left: bool) -> str:
    """Return `text` between Unicode isolates (UAX 9, 2.4), if its direction may differ from its sentence's.

    Punctuation and figures beside it then stay in their place.
    """
    if not text:
        return text
    if in_right_to_left or _RIGHT_TO_LEFT.search(text):
        return f"{_FIRST_STRONG_ISOLATE}{text}{_POP_DIRECTIONAL_ISOLATE}"
    return text


def _belong_together(before: str, character: str) -> bool:
    if unicodedata.combining(character) or unicodedata.category(character) in {"Mn", "Me", "Mc"}:
        return True
    if character == _ZERO_WIDTH_JOINER or before.endswith(_ZERO_WIDTH_JOINER):
        return True
    if "\U0001f3fb" <= character <= "\U0001f3ff" or "\U000e0020" <= character <= "\U000e007f":
        return True  # A skin tone; a letter of a region's flag.
    if not _is_regional(character):
        return False
    letters = len(before) - len(before.rstrip("".join(map(chr, range(0x1F1E6, 0x1F200)))))
    return letters % 2 == 1  # Two letters are a country's flag.


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
