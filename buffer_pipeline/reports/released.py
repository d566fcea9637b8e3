"""Released holds, and how late they were released. Reads only."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Double, cast, func, select

from buffer_pipeline.database import fetch
from buffer_pipeline.reports.rows import Rows, rows_of
from buffer_pipeline.shares import ShareKind
from buffer_pipeline.tables import batch, hold, transaction, wallet

_payee = wallet.alias("payee")


@dataclass(frozen=True, kw_only=True)
class Lateness:
    """Seconds from release date to release; None if nothing was released."""

    median_seconds: float | None
    max_seconds: float | None


def released_from(connection: Connection, *, source: str, since: datetime) -> tuple[Lateness, Rows]:
    """Return how late the releases by `source` since a moment were, and the latest twenty of them.

    A row is a hold with the `amount_minor` that was credited, its `release_date` and `released_at`.
    """
    lines = (
        select(
            hold.c.hold_id,
            hold.c.job,
            _payee.c.owner.label("payee"),
            transaction.c.amount_minor,
            transaction.c.currency,
            transaction.c.release_date,
            transaction.c.recorded_at.label("released_at"),
        )
        .select_from(transaction)
        .join(batch, batch.c.batch_id == transaction.c.batch_id)
        .join(hold, hold.c.hold_id == transaction.c.hold_id)
        .join(_payee, _payee.c.wallet_id == hold.c.payee_wallet_id)
        # The condition on transaction.recorded_at only lets the index find the batches' transactions.
        .where(transaction.c.recorded_at >= since, batch.c.recorded_at >= since, batch.c.source == source)
    )
    found = lines.subquery()
    seconds = cast(func.extract("epoch", found.c.released_at - found.c.release_date), Double)
    median, maximum = connection.execute(
        select(func.percentile_cont(0.5).within_group(seconds), func.max(seconds)).select_from(found)
    ).one()
    return (
        Lateness(median_seconds=median, max_seconds=maximum),
        rows_of(connection, lines.order_by(transaction.c.transaction_id.desc()).limit(20)),
    )


def released_shares(
    connection: Connection, *, source: str, since: datetime
) -> dict[tuple[ShareKind, str], int]:
    """Return the fees, taxes and reserves that `source` released since a moment: (kind, currency) -> minor.

    Empty if no such share was released.
    """
    rows = fetch(connection, "report/released_shares", source=source, since=since)
    # PostgreSQL's sum of bigint is numeric, which Python gets as Decimal.
    return {(ShareKind(row["kind"]), row["currency"]): int(row["amount_minor"]) for row in rows}


def holds_of_batch(connection: Connection, *, batch_id: int) -> Rows:
    """Return the holds that one batch released, with the `amount_minor` that was credited."""
    return rows_of(
        connection,
        select(
            hold.c.hold_id,
            hold.c.reference,
            hold.c.job,
            _payee.c.owner.label("payee"),
            transaction.c.amount_minor,
            transaction.c.currency,
            transaction.c.release_date,
        )
        .join(hold, hold.c.hold_id == transaction.c.hold_id)
        .join(_payee, _payee.c.wallet_id == hold.c.payee_wallet_id)
        .where(transaction.c.batch_id == batch_id)
        .order_by(transaction.c.transaction_id),
    )
