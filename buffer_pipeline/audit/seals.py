"""Seals: a chain of digests over the transactions, which shows any later change of them.

A seal has a digest of each of its transactions, called lines here (`sql/seals/digest_lines.sql`, 16 bytes
of SHA-256), and SHA-256 over the seal before, its own numbers and those digests. The digest of a seal that
is kept elsewhere (an anchor) proves all of the history up to that seal. See docs/decisions/0020.
"""

import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Connection, Engine

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.errors import InvalidInput

HISTORY_AS_SEALED: Final = "history_as_sealed"
"""The name of the check in Dagster."""
RANGE_LINES: Final = 32_768
"""Most ids of one seal: half a megabyte of digests."""
READERS: Final = 2
"""Connections that compute digests, each for a range of ids."""
WAIT_SECONDS: Final = 5.0
"""How long to wait for transactions that may still write older lines, and for another sealer."""
DIGEST_BYTES: Final = 16
_BEFORE_ALL: Final = -(2**63)
"""Below the id of every line; ids below zero are possible."""
_POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """A seal's number and digest. Keep it where those who can change the books cannot change it."""

    seal_id: int
    digest: bytes

    @classmethod
    def parse(cls, text: str) -> "Anchor":
        """Return the anchor from its text, as `str` writes it.

        Raises:
            InvalidInput: the text is no anchor.
        """
        number, _, digest = text.partition(":")
        try:
            anchor = cls(seal_id=int(number), digest=bytes.fromhex(digest))
        except ValueError:
            raise InvalidInput(
                f"anchor {text!r}: not a seal's number, a colon and 64 hexadecimal digits"
            ) from None
        if not 0 < anchor.seal_id < 2**63 or len(anchor.digest) != sha256().digest_size:
            raise InvalidInput(f"anchor {text!r}: not a seal's number, a colon and 64 hexadecimal digits")
        return anchor

    def __str__(self) -> str:
        return f"{self.seal_id}:{self.digest.hex()}"


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """What a call sealed.

    `waits` is True if lines are left: an open transaction may write older lines, another process seals, or
    the caller stopped it.
    """

    anchor: Anchor | None
    lines: int
    waits: bool


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was compared, and the first difference from what was sealed.

    `anchor`, `seals` and `lines` count what is in order. `unsealed` lines were written after the last seal,
    the first of them at `unsealed_since`. `offence` is a sentence that names the wrong line or seal, None if
    there is none. `transaction_id` is the wrong line, None if a seal is wrong.
    """

    anchor: Anchor | None
    seals: int
    lines: int
    unsealed: int
    unsealed_since: datetime | None = None
    offence: str | None = None
    transaction_id: int | None = None


_Link = Mapping[Any, Any]
"""first_id, through_id, lines, transaction_ids, line_digests."""


def seal(
    engine: Engine, *, wait_seconds: float = WAIT_SECONDS, stop: Callable[[], bool] = lambda: False
) -> Sealed:
    """Seal all transactions up to the newest one, once no open transaction can write an older one.

    Safe to run again, and at the same time as anything else. When `stop` returns True it stops waiting or
    sealing; what it has sealed stays.
    """
    with engine.begin() as connection:
        seen = fetch(connection, "seals/newest")[0]
    newest_id = _BEFORE_ALL if seen["newest_id"] is None else int(seen["newest_id"])
    deadline = time.monotonic() + wait_seconds
    while True:
        with engine.begin() as connection:
            # Then no more lines can come before the newest that was seen.
            passed = fetch(connection, "seals/has_passed", writers=seen["writers"] or [])[0]["has_passed"]
        # A transaction of its own, so that its snapshot sees what the last of them wrote.
        with engine.begin() as connection:
            if passed and fetch(connection, "seals/try_lock")[0]["is_mine"]:
                return _seal_through(engine, connection, newest_id, stop)
            if time.monotonic() > deadline or stop():
                return Sealed(anchor=_last(connection)[0], lines=0, waits=True)
        time.sleep(_POLL_SECONDS)


def _seal_through(engine: Engine, connection: Connection, newest_id: int, stop: Callable[[], bool]) -> Sealed:
    anchor, after_id = _last(connection)
    lines = 0
    for link in _links(engine, connection, after_id=after_id, through_id=newest_id):
        anchor = _add(connection, anchor, link)
        lines += link["lines"]
        if stop():
            return Sealed(anchor=anchor, lines=lines, waits=True)
    return Sealed(anchor=anchor, lines=lines, waits=False)


def _last(connection: AnyConnection) -> tuple[Anchor | None, int]:
    """Return the last seal of the chain, and the last sealed id."""
    rows = fetch(connection, "seals/last_seal")
    if not rows:
        return None, _BEFORE_ALL
    return Anchor(seal_id=rows[0]["seal_id"], digest=rows[0]["digest"]), rows[0]["through_id"]


def _links(engine: Engine, connection: Connection, *, after_id: int, through_id: int) -> Iterator[_Link]:
    """Yield the next links of the chain in order. Other threads digest the next ranges meanwhile."""

    def digest(after: int, through: int) -> _Link:
        with engine.begin() as reading:
            return _digest(reading, after_id=after, through_id=through)

    under_way: deque[Future[_Link]] = deque()
    with ThreadPoolExecutor(max_workers=READERS) as readers:
        while rows := fetch(connection, "seals/first_line", after_id=after_id, through_id=through_id):
            through = min(rows[0]["transaction_id"] + RANGE_LINES - 1, through_id)
            under_way.append(readers.submit(digest, after_id, through))
            after_id = through
            if len(under_way) > READERS:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _digest(connection: AnyConnection, *, after_id: int, through_id: int) -> _Link:
    lines: dict[str, int] = {"after_id": after_id, "through_id": through_id}
    link = dict(fetch(connection, "seals/digest_lines", **lines)[0])
    link["transaction_ids"] = None
    if link["lines"] and link["through_id"] - link["first_id"] + 1 != link["lines"]:
        link |= fetch(connection, "seals/line_ids", **lines)[0]
    return link


def _add(connection: AnyConnection, last: Anchor | None, link: _Link) -> Anchor:
    anchor = _anchor(last, link)
    fetch(connection, "seals/add_seal", seal_id=anchor.seal_id, digest=anchor.digest, **link)
    return anchor


def _anchor(last: Anchor | None, link: _Link) -> Anchor:
    """Return the number and digest of a link that follows `last`."""
    seal_id, before = (1, bytes(sha256().digest_size)) if last is None else (last.seal_id + 1, last.digest)
    transaction_ids = link["transaction_ids"] or ()
    digest = sha256(before)
    digest.update(struct.pack(">4q", seal_id, link["first_id"], link["through_id"], link["lines"]))
    digest.update(struct.pack(f">{len(transaction_ids)}q", *transaction_ids))
    digest.update(link["line_digests"])
    return Anchor(seal_id=seal_id, digest=digest.digest())


_Offence = tuple[str, int | None]
"""A sentence that names what differs from what was sealed, and the line's id if it is a line."""


def verify(connection: AnyConnection, *, anchors: Iterable[Anchor] = ()) -> Verification:
    """Compare the seals with the transactions, in order, up to the first difference. Reads only.

    Each of `anchors` must be in the chain. If the books are in use, call it on a connection of
    `database.snapshot`.
    """
    noted: dict[int, set[Anchor]] = {}
    for anchor in anchors:
        noted.setdefault(anchor.seal_id, set()).add(anchor)
    last: Anchor | None = None
    after_id, lines = _BEFORE_ALL, 0
    offence: _Offence | None = None
    while rows := fetch(connection, "seals/next_seal", seal_id=0 if last is None else last.seal_id):
        link = rows[0]
        anchor = _anchor(last, link)
        offence = _broken_link(link, anchor, after_id=after_id, noted=noted.pop(anchor.seal_id, {anchor}))
        offence = offence or _broken_lines(connection, link, anchor, after_id=after_id)
        if offence:
            break
        last, after_id, lines = anchor, link["through_id"], lines + link["lines"]
    if offence is None and noted:
        offence = f"seal {min(noted)}: was noted and is missing", None
    unsealed = fetch(connection, "seals/unsealed")[0]
    sentence, transaction_id = offence or (None, None)
    return Verification(
        anchor=last,
        seals=0 if last is None else last.seal_id,
        lines=lines,
        unsealed=unsealed["lines"],
        unsealed_since=unsealed["since"],
        offence=sentence,
        transaction_id=transaction_id,
    )


def _about(link: _Link, anchor: Anchor) -> str:
    return f"seal {anchor.seal_id}, of transactions {link['first_id']} to {link['through_id']}"


def _broken_link(link: _Link, anchor: Anchor, *, after_id: int, noted: set[Anchor]) -> _Offence | None:
    if link["seal_id"] != anchor.seal_id:
        return f"seal {anchor.seal_id}: is missing", None
    if link["digest"] != anchor.digest or link["first_id"] <= after_id:
        return f"{_about(link, anchor)}: is not what was sealed, or the one before is not", None
    if noted != {anchor}:
        return f"{_about(link, anchor)}: is not the one that was noted; all was sealed anew", None
    return None


def _broken_lines(
    connection: AnyConnection, link: _Link, anchor: Anchor, *, after_id: int
) -> _Offence | None:
    is_now = _digest(connection, after_id=after_id, through_id=link["through_id"])
    if all(is_now[name] == link[name] for name in is_now):
        return None
    different = _first_difference(connection, link, is_now, after_id=after_id)
    return different or (f"{_about(link, anchor)}: says of itself what its lines do not", None)


def _first_difference(
    connection: AnyConnection, link: _Link, is_now: _Link, *, after_id: int
) -> _Offence | None:
    ids_now = fetch(connection, "seals/line_ids", after_id=after_id, through_id=link["through_id"])[0]
    sealed = _by_id(link["transaction_ids"] or range(link["first_id"], link["through_id"] + 1), link)
    now = _by_id(ids_now["transaction_ids"] or (), is_now)
    differing = [number for number in sealed.keys() | now.keys() if sealed.get(number) != now.get(number)]
    if not differing:
        return None
    transaction_id = min(differing)
    if transaction_id not in now:
        became = "is missing; it was there when it was sealed"
    elif transaction_id not in sealed:
        became = "was added among lines that were sealed before"
    else:
        became = "was altered; it is not what was sealed"
    return f"transaction {transaction_id}: {became}", transaction_id


def _by_id(transaction_ids: Iterable[int], link: _Link) -> dict[int, bytes]:
    digests = link["line_digests"] or b""
    return {
        number: digests[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES]
        for place, number in enumerate(transaction_ids)
    }
