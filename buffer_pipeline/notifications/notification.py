"""A notification, with the facts that its message tells."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from buffer_pipeline.hold_metadata import Metadata


@dataclass(frozen=True, kw_only=True)
class NotifiedShare:
    """A share of the earning that a notification is about, as it was held at first.

    `left_minor` is what is in the buffer when the notification is sent, None if the share is settled.
    `due_at` is its release date then, None if it is settled or frozen.
    """

    hold_id: int
    kind: str
    owner: str
    amount_minor: int
    release_date: datetime
    left_minor: int | None = None
    due_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Notification:
    """A message owed to an owner. `notification_id` never changes, so receivers can deduplicate by it."""

    notification_id: int
    type: str
    owner: str
    to_payer: bool
    """Whether the owner is the payer. Some types go to payee and payer, each with a text of its own."""
    hold_id: int | None
    backjob_id: int | None
    job: str
    """The platform's id of the work; empty for a payout."""
    title: str | None
    currency: str | None
    amount_minor: int | None
    places: int | None
    """The currency's decimal places in the books; None without an amount."""
    release_date: datetime | None
    created_at: datetime
    left_minor: int | None = None
    """Of a part that was released early: what the hold then still held, until `release_date`. Of what was
    taken back, or was recovered of a debt: what the owner then still owed."""
    reason: str | None = None
    """Why it was taken back; None of other types."""
    metadata: Metadata = field(default_factory=dict)
    """That of the earning; empty for a backjob."""
    kind: str | None = None
    """What the hold is for: PAYEE, FEE, TAX or RESERVE; None for a backjob."""
    earning_id: int | None = None
    """The first hold of an earning with shares."""
    earning_minor: int | None = None
    shares: tuple[NotifiedShare, ...] = ()
    """The earning and its shares, the payee's first. Only that payee gets them, never the payer or others."""
    payout_id: int | None = None
    payout_reason: str | None = None
    """Why the bank returned a payout, when the notification is sent; None if it has not."""
    payout_account: str | None = None
    """Where a payout went, masked."""
    payee_text: str | None = None
    """Of a payment that was frozen without a backjob: what the payee is told."""


def read_shares(text: object) -> tuple[NotifiedShare, ...]:
    """Return the shares that `outbox/claim_deliveries.sql` wrote as JSON."""
    if text is None:
        return ()
    found: list[dict[str, Any]] = json.loads(str(text))
    return tuple(
        NotifiedShare(
            **{
                **share,
                "release_date": datetime.fromisoformat(share["release_date"]),
                "due_at": share["due_at"] and datetime.fromisoformat(share["due_at"]),
            }
        )
        for share in found
    )
