"""All pages of a list as plain rows, which are easy to compare."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection

from buffer_pipeline.reads import (
    LIMIT_MAX,
    every_item,
    list_backjobs,
    list_debts,
    list_holds,
    list_payouts,
    statement,
)

Rows = list[dict[str, Any]]


def all_holds(connection: Connection, *, limit: int = LIMIT_MAX, **filters: Any) -> Rows:
    """Return all holds that match, the oldest first."""
    return [
        asdict(hold)
        for hold in every_item(
            lambda cursor: list_holds(connection, oldest_first=True, limit=limit, cursor=cursor, **filters)
        )
    ]


def all_backjobs(connection: Connection, **filters: Any) -> Rows:
    """Return all backjobs that match, the oldest first."""
    return [
        asdict(backjob)
        for backjob in every_item(
            lambda cursor: list_backjobs(connection, oldest_first=True, cursor=cursor, **filters)
        )
    ]


def all_debts(connection: Connection, **filters: Any) -> Rows:
    """Return all debts that match, the newest first."""
    return [
        asdict(debt) for debt in every_item(lambda cursor: list_debts(connection, cursor=cursor, **filters))
    ]


def all_payouts(connection: Connection, **filters: Any) -> Rows:
    """Return all payouts that match, the newest first."""
    return [
        asdict(each) for each in every_item(lambda cursor: list_payouts(connection, cursor=cursor, **filters))
    ]


def all_lines(connection: Connection, *, owner: str, **filters: Any) -> Rows:
    """Return all lines of an owner's statement, the oldest first."""
    return [
        asdict(line)
        for line in every_item(
            lambda cursor: statement(
                connection, owner=owner, oldest_first=True, limit=LIMIT_MAX, cursor=cursor, **filters
            )
        )
    ]
