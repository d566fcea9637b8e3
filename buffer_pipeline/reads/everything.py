"""What `every_item` keeps from page to page, so that to list everything reads it about once.

A page alone begins anew: some walks read all that matches, and a statement adds up the lines before the page.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

Sums = dict[str, tuple[int, int]]
"""By currency, the balance and the pending earnings of an owner."""


class Kept:
    """The keys that a walk found after its first page, and the sums of a statement where a page ended."""

    def __init__(self) -> None:
        self._keys: dict[object, list[int]] = {}
        self._sums: dict[object, tuple[object, dict[int, Sums]]] = {}

    def keys_after(
        self, walk: object, key: int, size: int, *, newest: bool, read: Callable[[], Sequence[int]]
    ) -> list[int]:
        """Return the next keys of a walk. All keys after `key` are read once, in the order of the list."""
        if walk not in self._keys:
            self._keys[walk] = list(read())
        keys = self._keys[walk]
        sign = -1 if newest else 1
        start = bisect_right(keys, sign * key, key=lambda each: sign * each)
        return keys[start : start + size]

    def sums_at(self, listing: object, key: int) -> tuple[object, Sums | None]:
        """Return the snapshot of the last step, and what the wallets held at this line of it, or None."""
        snapshot, sums = self._sums.get(listing, (None, {}))
        return snapshot, sums.get(key)

    def keep_sums(self, listing: object, snapshot: object, sums: dict[int, Sums]) -> None:
        """Keep what the wallets held at each line of a step, instead of those of the step before."""
        self._sums[listing] = snapshot, sums


_KEPT: Final[ContextVar[Kept | None]] = ContextVar("kept", default=None)


def kept_now() -> Kept | None:
    """Return what the `every_item` keeps that asks for a page; None if a page is asked for alone."""
    return _KEPT.get()


@contextmanager
def keeping(kept: Kept) -> Iterator[None]:
    """Let the pages that are read in this block use `kept`."""
    token = _KEPT.set(kept)
    try:
        yield
    finally:
        _KEPT.reset(token)
