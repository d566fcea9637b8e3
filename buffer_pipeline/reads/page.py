"""Pages of a list, and the cursors between them."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Generic, TypeVar

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.inputs import ID_MAX
from buffer_pipeline.reads.everything import Kept, keeping

LIMIT: Final = 10
"""How many items a page has if nobody says how many."""

LIMIT_MAX: Final = 1_000

CHUNK_MAX: Final = 1_000
"""How many rows are looked at in one statement."""

EXAMINED_MAX: Final = 5_000
"""How many rows are looked at for one page: the page ends there, however few of them match."""

_DIGEST_BYTES: Final = 8
_CURSOR_LENGTH_MAX: Final = 2_000

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Page(Generic[Item]):
    """Items of a list, in its order. `next_cursor` is for the next page, and None after the last one.

    A page can have fewer items than its limit, or none, and still not be the last one: a page looks at a
    limited number of rows, so that a rare filter on a large table takes many short calls and not a long one.
    """

    items: tuple[Item, ...]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A call of a list: its name, what was asked for, and where the page begins."""

    name: str
    filters: Mapping[str, object]
    limit: int
    oldest_first: bool
    cursor: str | None

    def __post_init__(self) -> None:
        if isinstance(self.limit, bool) or not isinstance(self.limit, int):
            raise InvalidInput(f"limit {self.limit!r}: needs an int, got {type(self.limit).__name__}")
        if not 1 <= self.limit <= LIMIT_MAX:
            raise InvalidInput(f"limit {self.limit}: must be from 1 to {LIMIT_MAX}")

    @property
    def start(self) -> int:
        """The key after which the page begins, in the order of the list.

        Raises:
            InvalidInput: the cursor is none that this list has returned, or one of other filters.
        """
        if self.cursor is None:
            return 0 if self.oldest_first else ID_MAX
        name, digests, key = _decode(self.cursor)
        if name != self.name:
            raise InvalidInput(f"cursor: belongs to {name}, not to {self.name}")
        asked = self._digests()
        for filter_name in sorted({*digests, *asked}):
            if digests.get(filter_name) != asked.get(filter_name):
                raise InvalidInput(
                    f"cursor: was made with another {filter_name}; pass it with the filters and the order of"
                    " the page that it came with"
                )
        return key

    def cursor_after(self, key: int) -> str:
        """Return the cursor of the page that begins after `key`."""
        payload = json.dumps([self.name, self._digests(), key], separators=(",", ":")).encode()
        return urlsafe_b64encode(_digest(payload) + payload).decode().rstrip("=")

    def _digests(self) -> dict[str, str]:
        asked = {**self.filters, "oldest_first": self.oldest_first or None}
        return {
            name: _digest(repr(value).encode())[:4].hex()
            for name, value in asked.items()
            if value is not None
        }


def _digest(data: bytes) -> bytes:
    return sha256(b"buffer-pipeline cursor 1" + data).digest()[:_DIGEST_BYTES]


def _decode(cursor: str) -> tuple[str, dict[str, str], int]:
    """Return the name of the list, the digests of its filters, and the key."""
    refusal = InvalidInput("cursor: not valid; begin with the first page, without a cursor")
    if not isinstance(cursor, str):
        raise InvalidInput(f"cursor: needs text, got {type(cursor).__name__}")
    if not cursor or len(cursor) > _CURSOR_LENGTH_MAX:
        raise refusal
    try:
        data = urlsafe_b64decode((cursor + "=" * (-len(cursor) % 4)).encode("ascii"))
    except (NotBase64, ValueError):
        raise refusal from None
    digest, payload = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    # The same bytes have several texts in base 64; only the one that was returned is accepted.
    if digest != _digest(payload) or urlsafe_b64encode(data).decode().rstrip("=") != cursor:
        raise refusal
    # The checksum has no secret: somebody can make one for any payload.
    try:
        name, digests, key = json.loads(payload)
    except (ValueError, TypeError, RecursionError):
        raise refusal from None
    if not isinstance(name, str) or not isinstance(digests, dict):
        raise refusal
    if isinstance(key, bool) or not isinstance(key, int) or not 0 <= key <= ID_MAX:
        raise refusal
    return name, digests, key


@dataclass(frozen=True)
class Step(Generic[Item]):
    """The next candidates of a list: pairs of a key and an item, in the order of the list.

    The item is None if it does not match. `through` is the key up to which the list was read, None at its
    end. `examined` is about how many rows that took.
    """

    pairs: Sequence[tuple[int, Item | None]]
    through: int | None
    examined: int


def read_page(
    listing: Listing, next_step: Callable[[int, int], Step[Item]], *, every_row_matches: bool = False
) -> Page[Item]:
    """Return a page. `next_step(key, size)` returns at most `size` candidates after `key`, found by an index.

    If `every_row_matches`, one step is enough.
    """
    key = listing.start
    found: list[tuple[int, Item]] = []
    examined = 0
    # One more than the page has, to know whether there is a next one.
    size = listing.limit + 1
    while True:
        step = next_step(key, size)
        for at, item in step.pairs:
            if item is not None:
                if len(found) == listing.limit:
                    return _page(found, listing.cursor_after(found[-1][0]))
                found.append((at, item))
        if step.through is None:
            return _page(found, None)
        key = step.through
        examined += step.examined
        if examined >= EXAMINED_MAX:
            return _page(found, listing.cursor_after(key))
        if not every_row_matches:
            size = min(size * 4, CHUNK_MAX)


def _page(found: Sequence[tuple[int, Item]], next_cursor: str | None) -> Page[Item]:
    return Page(items=tuple(item for _, item in found), next_cursor=next_cursor)


def every_item(next_page: Callable[[str | None], Page[Item]]) -> Iterator[Item]:
    """Yield the items of all pages; `next_page(cursor)` returns one.

    The pages together cost about as much as one that has everything, since what the next one needs is kept.
    """
    kept = Kept()
    cursor = None
    while True:
        with keeping(kept):
            page = next_page(cursor)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return
