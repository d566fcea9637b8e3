"""Holds that are due. Reads only."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, func, select

from buffer_pipeline.hold import HoldState
from buffer_pipeline.reports.holds import select_holds
from buffer_pipeline.reports.rows import Rows, rows_of
from buffer_pipeline.tables import hold_status, unsettled_hold


@dataclass(frozen=True, kw_only=True)
class Due:
    """The holds that are due by a moment: how many, amounts by currency in minor units, the oldest date."""

    holds: int
    amounts_minor: dict[str, int]
    oldest_release_date: datetime | None


def due_holds(connection: Connection, *, due_by: datetime) -> Due:
    """Count the holds that a release run with this cut-off would release."""
    rows = connection.execute(
        select(
            unsettled_hold.c.currency,
            func.count(),
            func.sum(unsettled_hold.c.amount_minor),
            func.min(unsettled_hold.c.release_date),
        )
        .where(*is_due(due_by))
        .group_by(unsettled_hold.c.currency)
        .order_by(unsettled_hold.c.currency)
    ).all()
    return Due(
        holds=sum(row[1] for row in rows),
        amounts_minor={row[0]: int(row[2]) for row in rows},
        oldest_release_date=min((row[3] for row in rows), default=None),
    )


def list_due(connection: Connection, *, due_by: datetime, limit: int | None = None) -> Rows:
    """Return the holds that a release run with this cut-off would release, by release date.

    The columns are those of `select_holds`.
    """
    due = select(unsettled_hold.c.hold_id).where(*is_due(due_by))
    return rows_of(
        connection,
        select_holds()
        .where(hold_status.c.hold_id.in_(due))
        .order_by(hold_status.c.release_date, hold_status.c.hold_id)
        .limit(limit),
    )


def is_due(due_by: datetime) -> list[ColumnElement[bool]]:
    """Return the conditions of a due hold."""
    # The same conditions as in the release, so that its index is used.
    return [
        unsettled_hold.c.state == HoldState.BUFFERED,
        unsettled_hold.c.release_hour <= due_by,
        unsettled_hold.c.release_date <= due_by,
    ]
