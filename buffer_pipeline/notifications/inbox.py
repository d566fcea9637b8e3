"""The inbox that the platform's app shows: each owner's messages, the newest first, read or unread."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.errors import InvalidInput, NotFound
from buffer_pipeline.inputs import ID_MAX, require_id, require_text, require_time

PAGE_MAX: Final = 500


@dataclass(frozen=True, kw_only=True)
class InboxMessage:
    """One message in an owner's inbox; `read_at` is None until it is marked as read."""

    notification_id: int
    owner: str
    type: str
    title: str
    body: str
    hold_id: int | None
    backjob_id: int | None
    created_at: datetime
    read_at: datetime | None = None
    payout_id: int | None = None


def add_to_inbox(connection: AnyConnection, messages: Sequence[InboxMessage]) -> int:
    """Put messages into their owners' inboxes and return how many were new.

    Safe to run again: a notification is in the inbox once, and what was read stays read.
    """
    if not messages:
        return 0
    # Ordered by id, so that two callers that add the same messages cannot deadlock.
    ordered = sorted(messages, key=lambda message: message.notification_id)
    rows = fetch(
        connection,
        "inbox/add_messages",
        notification_ids=[message.notification_id for message in ordered],
        owners=[message.owner for message in ordered],
        types=[message.type for message in ordered],
        titles=[message.title for message in ordered],
        bodies=[message.body for message in ordered],
        hold_ids=[message.hold_id for message in ordered],
        backjob_ids=[message.backjob_id for message in ordered],
        payout_ids=[message.payout_id for message in ordered],
        created_at=[message.created_at for message in ordered],
    )
    return len(rows)


def list_inbox(
    connection: AnyConnection,
    *,
    owner: str,
    before: int | None = None,
    limit: int = 50,
    unread: bool = False,
) -> list[InboxMessage]:
    """Return a page of an owner's messages, the newest first; only unread ones if `unread`.

    For the next page, pass the last notification_id of this one as `before`. A message that arrives in
    between does not shift the pages.

    Raises:
        InvalidInput: a limit below 1 or above 500.
    """
    require_text("owner", owner)
    if not 1 <= limit <= PAGE_MAX:
        raise InvalidInput(f"limit {limit}: must lie between 1 and {PAGE_MAX}")
    if before is not None:
        require_id("notification", before)
    rows = fetch(
        connection,
        "inbox/list_unread" if unread else "inbox/list_messages",
        owner=owner,
        before=ID_MAX if before is None else before,
        row_limit=limit,
    )
    return [InboxMessage(**row) for row in rows]


def count_unread(connection: AnyConnection, *, owner: str) -> int:
    """Return how many of an owner's messages are unread."""
    require_text("owner", owner)
    return int(fetch(connection, "inbox/count_unread", owner=owner)[0]["unread"])


def mark_read(
    connection: AnyConnection, *, owner: str, notification_ids: Sequence[int], now: datetime
) -> int:
    """Mark messages as read and return how many were unread. Safe to run again: `read_at` stays.

    Raises:
        NotFound: one of them is not in the owner's inbox; nothing is marked.
    """
    require_time("now", now)
    require_text("owner", owner)
    ids = sorted({require_id("notification", notification_id) for notification_id in notification_ids})
    marked = fetch(connection, "inbox/mark_read", owner=owner, notification_ids=ids, now=now)
    found = {row["notification_id"] for row in marked}
    if missing := [notification_id for notification_id in ids if notification_id not in found]:
        raise NotFound(
            f"notification {missing[0]}: is not in the inbox of {owner!r}",
            notification_id=missing[0],
            owner=owner,
        )
    return sum(row["was_unread"] for row in marked)


def mark_all_read(connection: AnyConnection, *, owner: str, up_to: int, now: datetime) -> int:
    """Mark an owner's messages up to a notification_id as read and return how many were unread.

    `up_to` is the newest message that the owner has seen. Later ones stay unread. An earlier one is marked
    even if it arrived since, such as a dead letter that was replayed; `mark_read` marks only what it is
    given.
    """
    require_time("now", now)
    require_text("owner", owner)
    require_id("notification", up_to)
    return len(fetch(connection, "inbox/mark_all_read", owner=owner, up_to=up_to, now=now))
