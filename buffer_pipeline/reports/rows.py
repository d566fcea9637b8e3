"""Rows of a report: plain dicts. Amounts are minor units, with a column for the currency. Times are UTC."""

from typing import Any

from sqlalchemy import Connection, Select

Rows = list[dict[str, Any]]


def rows_of(connection: Connection, query: Select[Any]) -> Rows:
    """Return the rows of a query."""
    return [dict(row) for row in connection.execute(query).mappings()]
