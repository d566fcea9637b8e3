"""Payouts and their batches. Reads only; no account, only what is shown of it."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import Connection, select

from buffer_pipeline.database import fetch
from buffer_pipeline.errors import NotFound
from buffer_pipeline.payouts.state import OPEN_BATCH, PayoutState
from buffer_pipeline.policy import PayoutPolicy
from buffer_pipeline.reports.rows import Rows, rows_of
from buffer_pipeline.tables import payout, payout_batch, wallet


def show_payout_batch(connection: Connection, *, payout_batch_id: int) -> dict[str, Any]:
    """Return a batch with who made, approved, sent or cancelled it.

    Raises:
        NotFound: no such batch.
    """
    rows = rows_of(connection, select(payout_batch).where(payout_batch.c.payout_batch_id == payout_batch_id))
    if not rows:
        raise NotFound(f"payout batch {payout_batch_id}: does not exist", payout_batch_id=payout_batch_id)
    return rows[0]


def batches_of_day(connection: Connection, *, day: date) -> Rows:
    """Return the batches that were made on a day (UTC), by id, with their states now.

    `paid` and `returned` are how many of their payouts status files have marked so far.
    """
    start = datetime.combine(day, time(), tzinfo=UTC)
    end = start + timedelta(days=1)
    found = fetch(connection, "report/payout_batches_of_day", day_start=start, day_end=end)
    return [dict(row) for row in found]


def stuck_batches(connection: Connection, *, now: datetime, policy: PayoutPolicy) -> Rows:
    """Return the batches that wait for longer than the policy says, the longest first.

    A row has `stage`: UNANSWERED (sent, and payouts of it have no status), UNAPPROVED, or UNSENT (approved,
    so it has no file yet); and payout_batch_id, currency, method, `payouts` and amount_minor of what waits,
    `since`, and made_by.
    """
    found = fetch(
        connection,
        "report/stuck_payout_batches",
        sent_by=now - policy.answer,
        waiting_since=now - policy.approval,
    )
    return [dict(row) for row in found]


def unanswered_payouts(connection: Connection, *, sent_by: datetime, limit: int = 100) -> Rows:
    """Return payouts that were sent at or before a moment and that no status came for, the longest first."""
    return rows_of(
        connection,
        select(
            payout.c.payout_id,
            wallet.c.owner,
            payout.c.currency,
            payout.c.amount_minor,
            payout.c.payout_batch_id,
            payout.c.sent_at,
        )
        .join(wallet, wallet.c.wallet_id == payout.c.wallet_id)
        .where(payout.c.state == PayoutState.SENT.value, payout.c.sent_at <= sent_by)
        .order_by(payout.c.sent_at, payout.c.payout_id)
        .limit(limit),
    )


def unsent_batches(connection: Connection, *, made_by: datetime, limit: int = 100) -> Rows:
    """Return batches that were made at or before a moment and wait to be sent, the oldest first."""
    return rows_of(
        connection,
        select(payout_batch)
        .where(payout_batch.c.state.in_(OPEN_BATCH), payout_batch.c.made_at <= made_by)
        .order_by(payout_batch.c.made_at, payout_batch.c.payout_batch_id)
        .limit(limit),
    )
