"""Asset checks: the books after the credits, and what has waited for too long."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import dagster as dg
from sqlalchemy import Connection

from buffer_pipeline import reports
from buffer_pipeline.database import database_clock
from buffer_pipeline.orchestration.assets import (
    FROZEN_PAYMENTS,
    amount_metadata,
    do_not_retry,
    released_transactions,
)
from buffer_pipeline.orchestration.resources import Books
from buffer_pipeline.policy import Policy
from buffer_pipeline.reconcile import reconcile

ROWS_SHOWN_MAX: Final = 100

OVERDUE_AFTER: Final = timedelta(hours=1)
"""The job runs on the hour, so a payment is normally released within one."""

BOOKS_BALANCE: Final = dg.AssetCheckSpec(
    "books_balance",
    asset=released_transactions,
    blocking=True,
    description="Per currency the wallets hold what came in from outside less what went out."
    " While it fails nobody is told about a release.",
)
HOLD_SETTLED_ONCE: Final = dg.AssetCheckSpec(
    "hold_settled_once",
    asset=released_transactions,
    blocking=True,
    description="No payment was released twice or paid out more than it held."
    " While it fails nobody is told about a release.",
)


@dg.multi_asset_check(name="books_after_release", specs=[BOOKS_BALANCE, HOLD_SETTLED_ONCE], can_subset=True)
def books_after_release(
    context: dg.AssetCheckExecutionContext, books: dg.ResourceParam[Books]
) -> Iterator[dg.AssetCheckResult]:
    """Reconcile the books as they are at one moment."""
    names = [key.name for key in context.selected_asset_check_keys]
    with (
        books.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
        connection.begin(),
    ):
        broken = {violation.invariant: violation.rows for violation in reconcile(connection, names)}
    if broken:
        do_not_retry(context)
    for name in names:
        rows = broken.get(name, [])
        yield dg.AssetCheckResult(
            asset_key=released_transactions.key,
            check_name=name,
            passed=not rows,
            metadata={"offending_rows": len(rows), **table_metadata("rows", rows)},
        )


@dg.asset_check(
    asset=FROZEN_PAYMENTS.key,
    description="No payment stays frozen for longer than BUFFER_STUCK_AFTER_HOURS."
    " Evaluated by the sensor `stuck_frozen_payments` too.",
)
def no_payment_stuck(books: dg.ResourceParam[Books]) -> dg.AssetCheckResult:
    """List the payments that have been frozen for too long."""
    with books.engine.begin() as connection:
        stuck = reports.stuck_holds(
            connection, now=database_clock(connection), older_than=books.policy.stuck_after
        )
    return dg.AssetCheckResult(
        passed=not stuck, metadata=stuck_metadata(stuck, policy=books.policy), severity=_WARN
    )


@dg.asset_check(
    asset=released_transactions,
    description="No payment has been due for more than an hour without being released."
    " Evaluated by the sensor `overdue_releases` too.",
)
def nothing_overdue(books: dg.ResourceParam[Books]) -> dg.AssetCheckResult:
    """List the payments whose release is overdue."""
    with books.engine.begin() as connection:
        due_by = database_clock(connection) - OVERDUE_AFTER
        overdue = reports.due_holds(connection, due_by=due_by)
        metadata = overdue_metadata(connection, overdue, due_by=due_by)
    return dg.AssetCheckResult(passed=overdue.holds == 0, metadata=metadata, severity=_WARN)


_WARN: Final = dg.AssetCheckSeverity.WARN


def stuck_metadata(stuck: reports.Rows, *, policy: Policy) -> dict[str, Any]:
    """Return the total and the first rows of what `reports.stuck_holds` found."""
    columns = ("hold_id", "job", "payee", "frozen_since", "kinds")
    return {
        "stuck_holds": len(stuck),
        "stuck_after_hours": policy.stuck_after_hours,
        **table_metadata("holds", [{name: row[name] for name in columns} for row in stuck]),
    }


def overdue_metadata(connection: Connection, overdue: reports.Due, *, due_by: datetime) -> dict[str, Any]:
    """Return the totals of what is overdue and its first rows, by release date."""
    columns = ("hold_id", "job", "payee", "release_date", "amount_minor", "currency")
    rows = reports.list_holds(connection, due_by=due_by, limit=ROWS_SHOWN_MAX)
    return {
        "overdue_holds": overdue.holds,
        **amount_metadata(overdue.amounts_minor),
        **table_metadata("holds", [{name: row[name] for name in columns} for row in rows]),
    }


def table_metadata(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the first rows as a table under `name`; nothing when there is no row."""
    if not rows:
        return {}
    records = [
        dg.TableRecord({column: _cell(value) for column, value in row.items()})
        for row in rows[:ROWS_SHOWN_MAX]
    ]
    return {name: dg.MetadataValue.table(records)}


def _cell(value: object) -> str | int:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, Decimal):  # A sum of bigints, so a whole number.
        return int(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value if isinstance(value, int) else str(value)
