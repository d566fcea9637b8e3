"""Shares as text on the command line and in files: KIND:OWNER:AMOUNT, such as FEE:platform:12%."""

import re
from typing import Final

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.shares import Share, ShareKind

_DAYS: Final = re.compile(r"[0-9]{1,9}d", re.ASCII)
_REST: Final = "rest"


def parse_share(text: str) -> Share:
    """Return the share that KIND:OWNER:AMOUNT names, or KIND:OWNER:AMOUNT:DAYSd with days of its own.

    AMOUNT is an amount, a percent such as 12%, or `rest`. An owner may contain colons.

    Raises:
        InvalidInput: not in this form, or an unknown kind.
    """
    kind, _, rest = text.partition(":")
    owner, _, amount = rest.rpartition(":")
    days = None
    # No amount ends with a d.
    if _DAYS.fullmatch(amount):
        days = int(amount.removesuffix("d"))
        owner, _, amount = owner.rpartition(":")
    if not (kind and owner and amount):
        raise InvalidInput(f"share {text!r}: needs KIND:OWNER:AMOUNT, such as FEE:platform:150.00")
    if kind not in set(ShareKind):
        raise InvalidInput(f"share {text!r}: kind {kind!r} is not one of {', '.join(ShareKind)}")
    if amount == _REST:
        return Share(kind=ShareKind(kind), owner=owner, days=days)
    if amount.endswith("%"):
        return Share(kind=ShareKind(kind), owner=owner, percent=amount.removesuffix("%"), days=days)
    return Share(kind=ShareKind(kind), owner=owner, amount=amount, days=days)


def parse_shares(text: str) -> list[Share]:
    """Return the shares of a text that separates them by semicolons.

    Raises:
        InvalidInput: one of them is not in its form; the message names it.
    """
    return [parse_share(part.strip()) for part in text.split(";")]
