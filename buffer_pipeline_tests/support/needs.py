"""What the cases of a pair of verbs need."""

from collections.abc import Iterable
from typing import Final, NamedTuple

NEED_A_BACKJOB: Final = {"reject", "approve", "approve a part", "withdraw the backjob"}

NEED_A_FREEZE: Final = {"unfreeze", "refund", "refund a part", "refund once", "refund the fee"}

NEED_A_FROZEN_OWNER: Final = {"unfreeze the owner"}

NEED_A_DEBT: Final = {"recover the debt", "forgive the debt"}
"""The payee has spent 100.00 that was taken back then, and their balance is empty."""


class Needs(NamedTuple):
    """What the cases of a pair need: the arguments of `lay_out`."""

    backjob: bool
    freeze: bool
    frozen_owner: bool
    divided: bool
    debt: bool


def by_needs(pairs: Iterable[tuple[str, str]], *, divided: bool) -> dict[Needs, list[tuple[str, str]]]:
    """Return pairs of verbs by what their cases need."""
    found: dict[Needs, list[tuple[str, str]]] = {}
    for pair in pairs:
        needs = Needs(
            backjob=not NEED_A_BACKJOB.isdisjoint(pair),
            freeze=not NEED_A_FREEZE.isdisjoint(pair),
            frozen_owner=not NEED_A_FROZEN_OWNER.isdisjoint(pair),
            divided=divided,
            debt=not NEED_A_DEBT.isdisjoint(pair),
        )
        found.setdefault(needs, []).append(pair)
    return found
