"""Totals of everything in the books. Reads only."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, func, literal, select

from buffer_pipeline.reports.rows import Rows, rows_of
from buffer_pipeline.shares import ShareKind
from buffer_pipeline.tables import backjob, batch, hold_freeze, hourly_release_count, transaction

RELEASED_SHARES: Final = {
    ShareKind.FEE: "released_fee_minor",
    ShareKind.TAX: "released_tax_minor",
    ShareKind.RESERVE: "released_reserve_minor",
}
"""The columns of the hourly counts that have what was released of a kind of share."""


def currencies(connection: Connection) -> list[str]:
    """Return the currencies of the hourly counts, in order."""
    # The counts are few. From wallets or transactions, every row would have to be read.
    column = hourly_release_count.c.currency
    return list(connection.scalars(select(column).distinct().order_by(column)))


def counted_shares(connection: Connection) -> set[tuple[ShareKind, str]]:
    """Return the kind and the currency of the fees, taxes and reserves that the hourly counts have."""
    counts = hourly_release_count.c
    return {
        (kind, currency)
        for kind, name in RELEASED_SHARES.items()
        for currency in connection.scalars(select(counts.currency).where(counts[name] > 0).distinct())
    }


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Totals of the books: transactions, backjobs by state, freezes by kind.

    A row of `transactions` has the number of `lines` and their `amount_minor` for each `type`, `currency` and
    `early` (an early release or not).
    """

    transactions: Rows
    backjobs: dict[str, int]
    freezes: dict[str, int]


def totals(connection: Connection) -> Totals:
    """Return the totals. Reads every transaction."""
    early = func.coalesce(batch.c.kind == "EARLY", literal(False)).label("early")
    keys = (transaction.c.type, early, transaction.c.currency)
    lines = (
        select(
            *keys,
            func.count().label("lines"),
            func.sum(transaction.c.amount_minor).label("amount_minor"),
        )
        .select_from(transaction)
        .outerjoin(batch, batch.c.batch_id == transaction.c.batch_id)
        .group_by(*keys)
        .order_by(*keys)
    )

    def by_value(column: ColumnElement[Any]) -> dict[str, int]:
        query = select(column, func.count()).group_by(column).order_by(column)
        return {row[0]: row[1] for row in connection.execute(query)}

    return Totals(
        transactions=[
            {**row, "amount_minor": int(row["amount_minor"])} for row in rows_of(connection, lines)
        ],
        backjobs=by_value(backjob.c.state),
        freezes=by_value(hold_freeze.c.kind),
    )
