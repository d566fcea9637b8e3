"""Text inside a message: what others wrote, made fit for it, and numbers of things."""

import re
import unicodedata
from typing import Final

ELLIPSIS: Final = "…"

_FIRST_STRONG_ISOLATE: Final = "\u2068"
_POP_DIRECTIONAL_ISOLATE: Final = "\u2069"

# The blocks that Unicode keeps for scripts from right to left (UAX 9, table 4).
_RIGHT_TO_LEFT: Final = re.compile(
    "[\u0590-\u08ff\u200f\ufb1d-\ufdff\ufe70-\ufeff\U00010800-\U00010fff\U0001e800-\U0001efff]"
)

# Control characters, halves of surrogate pairs, line and paragraph separators.
_BREAKING: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

# They turn the direction of whatever follows, so that a title could rewrite the sentence behind it.
_WITHOUT_TURNING: Final = str.maketrans(
    dict.fromkeys("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
)

_ZERO_WIDTH_JOINER: Final = "\u200d"

_PARTS_SEARCHED_MAX: Final = 64


def of_others(text: str) -> str:
    """Return what somebody wrote on one line, and without what would turn the direction of ours."""
    return one_line(text.translate(_WITHOUT_TURNING))


def one_line(text: str) -> str:
    """Return `text` on one line: without control characters, white space as one space.

    The joiners that emoji and several scripts need stay.
    """
    return " ".join(_BREAKING.sub(" ", text).split())


def lines_of(text: str) -> str:
    """Return `text` with each of its lines as `one_line` has it, without empty ones around it."""
    return "\n".join(one_line(line) for line in text.strip().splitlines())


def shorten(text: str, length_max: int) -> str:
    """Return `text`, cut to at most `length_max` code points, an ellipsis included.

    It is cut between two characters as people count them: not inside a flag, a family or an accent.
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
    """Return a number of things, such as 1 batch or 2,000 batches."""
    plural = "es" if what.endswith("ch") else "s"
    return f"{number:,} {what}" + ("" if number == 1 else plural)


def set_apart(text: str, *, in_right_to_left: bool) -> str:
    """Return `text` isolated, if it could be shown in another direction than the sentence around it.

    By Unicode's isolates (UAX 9, 2.4): the punctuation and figures beside it stay where they belong.
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
