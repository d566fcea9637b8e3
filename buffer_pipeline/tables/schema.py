"""The PostgreSQL schema that all tables of the books are in."""

from typing import Final

from sqlalchemy import Column, DateTime, MetaData

SCHEMA: Final = "buffer"

metadata = MetaData(schema=SCHEMA)


def time_column(name: str, *, nullable: bool = False) -> Column[object]:
    """Return a `timestamptz` column."""
    return Column(name, DateTime(timezone=True), nullable=nullable)
