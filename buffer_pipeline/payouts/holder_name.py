"""The name of an account's holder, in the characters that every bank takes."""

import re
import unicodedata
from typing import Final

HOLDER_NAME_LENGTH_MAX: Final = 70
"""Of the Single Euro Payments Area; ISO 20022 allows 140."""

# EPC217-08, chapter 2.
_PLAIN: Final = re.compile(r"[A-Za-z0-9/\-?:().,'+ ]")

# Letters that are more than a plain letter with an accent.
_SPELLED: Final = str.maketrans(
    {
        "ß": "ss", "ẞ": "SS", "Æ": "AE", "æ": "ae", "Œ": "OE", "œ": "oe", "Ø": "O", "ø": "o", "Đ": "D",
        "đ": "d", "Ð": "D", "ð": "d", "Þ": "TH", "þ": "th", "Ł": "L", "ł": "l", "ı": "i", "’": "'",
        "‘": "'", "–": "-", "&": "+",
    }
)  # fmt: skip


def plain(text: str, *, instead: str = ".") -> str:
    """Return a text in the characters that every bank takes, at most 70 of them.

    Accents are dropped, and letters such as ß are spelled out. `instead` stands for what has no plain form.
    """
    parts = unicodedata.normalize("NFKD", text.translate(_SPELLED))
    kept = "".join(
        each if _PLAIN.fullmatch(each) else instead for each in parts if not unicodedata.combining(each)
    )
    return kept[:HOLDER_NAME_LENGTH_MAX].strip() or instead


def fault_of_holder_name(name: str) -> str | None:
    """Return what is wrong with a name that a bank would have to compare with its own, or None.

    It does not repeat the name, which is personal data.
    """
    for place, character in enumerate(name, 1):
        if unicodedata.combining(character):
            continue
        if "\0" in plain(f"x{character}x", instead="\0"):
            return f"character {place} has no form in what every bank takes: letters, digits and /-?:().,'+"
    spelled = unicodedata.normalize("NFKD", name.translate(_SPELLED))
    length = sum(not unicodedata.combining(each) for each in spelled)
    if length > HOLDER_NAME_LENGTH_MAX or len(name) > 2 * HOLDER_NAME_LENGTH_MAX:
        return f"has {length} characters; banks take {HOLDER_NAME_LENGTH_MAX}"
    if not any(each.isalnum() for each in name):
        return "has no letter"
    return None
